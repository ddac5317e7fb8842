"""Compressed indexes of faiss: how they are named, how they are made, and the file they are kept in.

Only kinds that search by inner product (or, of binary codes, by Hamming distance) can be named, with numbers that faiss
takes: it dies of others. Vectors are added in canonical order, so the label of a vector is its canonical row.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, sha256_of
from openilias.core.fingerprints import differences, fingerprint
from openilias.core.manifests import read_manifest, write_manifest
from openilias.core.progress import progress
from openilias.descriptors.store import Floats, Shard, told_if_full
from openilias.search.reading import picked

KIND = "compressed index"
ALGORITHM_VERSION = 1
TRAIN = 100_000
"""How many descriptors an index learns from, unless its codebooks need more."""
PER_CENTROID = 39
"""How many descriptors faiss wants for each centroid of a codebook."""

_N = r"[1-9]\d{0,3}"
_MANY = r"[1-9]\d{0,6}"
_SCALAR = "SQ(?:4|6|8|fp16|bf16)|Flat"
_FACTORY = re.compile(
    rf"(?:(?P<rotation>ITQ|RR)(?P<out>{_N})?,)?(?P<binary>LSH)(?:{_N})?r?t?"
    rf"|(?:RR(?:{_N})?,)?(?P<graph>HNSW(?:[2-9]|[1-9]\d\d?))(?:,(?:{_SCALAR}))?"
    rf"|(?:(?P<opq>OPQ){_N}(?:_{_N})?,|RR(?:{_N})?,)?(?:IVF(?P<lists>{_MANY})(?P<coarse>_HNSW(?:[2-9]|[1-9]\d))?,)?"
    rf"(?:(?P<pq>PQ){_N}(?:x(?P<bits>[1-9]|1[0-6])(?:fs)?)?|{_SCALAR}|RaBitQ)"
)
_PARAMETER = re.compile(rf"(nprobe|efSearch|quantizer_efSearch)={_MANY}")
_EXAMPLES = (
    "Name an index as faiss does: PQ64, OPQ64,PQ64, IVF256,PQ64, SQ8, SQ4, HNSW32, HNSW32,SQ8, RR,RaBitQ; "
    "binary codes: LSH (signs), RR256,LSH (of a random rotation), ITQ256,LSH (of ITQ)."
)


@dataclass(frozen=True)
class IndexSpec:
    """Which index, and how it is searched.

    Attributes:
        factory: as faiss names it, e.g. ``OPQ64,PQ64``; the numbers of ``ITQ256,LSH`` and ``RR256,LSH`` are bits.
        parameters: of the search, e.g. ``nprobe=16``, ``efSearch=128``; faiss's defaults where they are not given.
        rescore: how many of the best of the index are scored again, exactly; 0 for none.
        train: how many descriptors the index learns from; :data:`TRAIN`, or what its codebooks need, by default.
        seed: of the sample it learns from. The seeds within faiss are fixed.

    Raises:
        OpenIliasError: on construction, if faiss cannot make such an index, or it has no such parameter.
    """

    factory: str
    parameters: str = ""
    rescore: int = 0
    train: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        parts = _parts(self.factory)
        known = {"nprobe": "lists", "efSearch": "graph", "quantizer_efSearch": "coarse"}
        for part in self.parameters.split(",") if self.parameters else ():
            parameter = _PARAMETER.fullmatch(part)
            if parameter is None or not parts[known[parameter[1]]]:
                raise OpenIliasError(
                    f"{part!r} is no parameter of the index {self.factory}.",
                    fix="IVF takes nprobe=N, HNSW efSearch=N, IVF..._HNSW... also quantizer_efSearch=N; with commas "
                    "between them.",
                )
        if min(self.rescore, self.seed) < 0 or (self.train is not None and self.train < 1):
            raise OpenIliasError(f"rescore, train or seed of the index {self.factory} is negative, or train is 0.")

    @property
    def binary(self) -> bool:
        """Whether its codes are compared by Hamming distance."""
        return "LSH" in self.factory

    @property
    def made_of(self) -> dict[str, Any]:
        """What the index depends on besides the descriptors; the rest belongs to the search."""
        return {"factory": self.factory, "train": self.train, "seed": self.seed}

    @property
    def index_name(self) -> str:
        """The name of the index, usable as that of a file."""
        train = "" if self.train is None else f",train={self.train}"
        return f"{self.factory}{train}{f',seed={self.seed}' if self.seed else ''}"

    @property
    def name(self) -> str:
        """The name of the whole search, usable as that of a folder; different for different specs."""
        parameters = f",{self.parameters}" if self.parameters else ""
        return f"{self.index_name}{parameters}{f',rescore={self.rescore}' if self.rescore else ''}"

    def least(self, dims: int) -> int:
        """Return how many descriptors of ``dims`` dimensions it must learn from, at the least."""
        parts = _parts(self.factory)
        # OPQ learns its rotation with codebooks of 8 bits, whatever those of PQ have.
        bits = max(8 if parts["opq"] else 0, int(parts["bits"] or 8))
        centroids = max(int(parts["lists"] or 0), 2**bits if parts["pq"] else 0)
        return max(PER_CENTROID * centroids, dims if parts["rotation"] == "ITQ" or parts["opq"] else 1)


def _parts(factory: str) -> dict[str, str | None]:
    match = _FACTORY.fullmatch(factory)
    if match is None or (match["opq"] and not match["pq"]):
        raise OpenIliasError(f"{factory!r} is no index that can be made.", fix=_EXAMPLES)
    return match.groupdict()


def untyped_faiss() -> Any:
    """Return faiss; its stubs lack much of what it has."""
    import faiss

    return faiss


@dataclass(frozen=True)
class Built:
    """An index with everything in it.

    Attributes:
        index: of faiss.
        train_rows: how many descriptors it learned from.
        train_seconds: how long it learned, the sample being in memory.
        add_seconds: how long adding took, with reading.
        bytes_per_image: by how much its file grew, per vector, while they were added.
        fixed_bytes: size of its file before: codebooks, rotation, centroids.
    """

    index: Any
    train_rows: int
    train_seconds: float
    add_seconds: float
    bytes_per_image: float
    fixed_bytes: int


def index_of(
    spec: IndexSpec,
    shards: Sequence[Shard],
    dims: int,
    *,
    states: Sequence[str],
    path: Path | None = None,
    overwrite: bool = False,
) -> Built:
    """Make an index of all descriptors of the shards, or read it if a file holds it.

    Args:
        spec: which.
        shards: in canonical order.
        dims: of their descriptors.
        states: what identifies their content.
        path: the file to read, or to write with its manifest ``PATH.json``; None keeps nothing.
        overwrite: replace a file that holds the index of something else, or a damaged one.

    Raises:
        OpenIliasError: faiss cannot make such an index of these dimensions or of so few descriptors, they are damaged,
            or the file is in the way.
    """
    made_from = {"algorithm_version": ALGORITHM_VERSION, "index": spec.made_of, "dims": dims, "database": list(states)}
    if path is not None:
        found = _read(path, made_from, overwrite=overwrite)
        if found is not None:
            for shard in shards if spec.rescore else ():  # what is read of them is not seen by anything else
                shard.verify()
            return found
    built = build_index(spec, shards, dims)
    if path is not None:
        _write(built, path, made_from)
    return built


def build_index(spec: IndexSpec, shards: Sequence[Shard], dims: int) -> Built:
    """Train on a sample, then add all descriptors block by block; nothing else is held in memory.

    Equal input, seed and number of threads, equal index: graphs are built by one thread, because with more their
    edges depend on which comes first.

    Raises:
        OpenIliasError: as :func:`index_of`.
    """
    index = _new(spec, dims)
    sizes = [shard.rows for shard in shards]
    sample = _sample(spec, shards, sizes, dims)
    started = time.perf_counter()
    with _faiss_errors(spec, dims):
        index.train(sample)
    train_seconds = time.perf_counter() - started
    train_rows = len(sample)
    del sample
    fixed = _file_size(index)
    started = time.perf_counter()
    with (
        progress(f"add to {spec.index_name}", total=sum(sizes), unit="descriptors") as step,
        _one_thread_for_graphs(spec),
    ):
        for shard in shards:
            shard.verify()
            for block in shard.blocks():
                with _faiss_errors(spec, dims):
                    index.add(floats(block, "database"))
                step(len(block))
    add_seconds = time.perf_counter() - started
    growth = (_file_size(index) - fixed) / sum(sizes)
    return Built(index, train_rows, train_seconds, add_seconds, growth, fixed)


def _new(spec: IndexSpec, dims: int) -> Any:
    faiss, parts = untyped_faiss(), _parts(spec.factory)
    # The factory of faiss makes binary codes only where it is asked for L2; they are compared by Hamming distance.
    metric = faiss.METRIC_L2 if spec.binary else faiss.METRIC_INNER_PRODUCT
    if parts["rotation"] == "ITQ" and int(parts["out"] or dims) > dims:
        raise OpenIliasError(
            f"The index {spec.factory} cannot be made: ITQ makes no more bits than there are dimensions, {dims}.",
            fix=f"Ask for ITQ{dims},LSH, or for RR{parts['out']},LSH.",
        )
    # Without "np" faiss also learns a filter that is not used here, which takes most of the time.
    factory = f"{spec.factory}np" if parts["pq"] and not spec.factory.endswith("fs") else spec.factory
    with _faiss_errors(spec, dims):
        return faiss.index_factory(dims, factory, metric)


def _sample(spec: IndexSpec, shards: Sequence[Shard], sizes: list[int], dims: int) -> npt.NDArray[np.float32]:
    """Return what an index learns from.

    Raises:
        OpenIliasError: it is too little.
    """
    least = spec.least(dims)
    wanted = max(TRAIN, least) if spec.train is None else spec.train
    count = min(wanted, sum(sizes))
    if count < least:
        there = f"the database has {count:,}" if count == sum(sizes) else f"{count:,} were asked for"
        raise OpenIliasError(
            f"The index {spec.factory} must learn from {least:,} descriptors at the least; {there}.",
            fix="Take more to train on, or an index with fewer centroids (PQ64x4, fewer lists), or one that needs next "
            "to none: SQ8, LSH.",
        )
    rows = sample_rows(sizes, count, spec.seed)
    sample = np.empty((count, dims), np.float32)
    done = 0
    with progress(f"sample for {spec.index_name}", total=count, unit="descriptors") as step:
        for piece in picked(shards, rows):
            sample[done : done + len(piece)] = floats(piece, "database")
            done += len(piece)
            step(len(piece))
    return sample


def sample_rows(sizes: Sequence[int], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw ``count`` different rows from shards of these sizes, of each in proportion to its size.

    Returns:
        (count,) canonical rows, ascending; all, if there are not more.
    """
    ends = np.cumsum([0, *sizes], dtype=np.int64)
    total = int(ends[-1])
    if count >= total:
        return np.arange(total)
    shares = np.diff(ends * count // total)
    rng = np.random.default_rng(seed)
    drawn = [
        start + np.sort(rng.choice(size, share, replace=False))
        for start, size, share in zip(ends[:-1].tolist(), sizes, shares.tolist(), strict=True)
    ]
    return np.concatenate(drawn).astype(np.int64)


def floats(values: Floats, what: str) -> npt.NDArray[np.float32]:
    """Return what faiss takes: float32 in C order.

    Raises:
        OpenIliasError: a value is not finite.
    """
    converted = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(converted).all():
        raise OpenIliasError(f"A descriptor of the {what} is not finite.", fix="Describe it again.")
    return converted


@contextmanager
def _one_thread_for_graphs(spec: IndexSpec) -> Iterator[None]:
    faiss = untyped_faiss()
    before = faiss.omp_get_max_threads()
    if _parts(spec.factory)["graph"]:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def _faiss_errors(spec: IndexSpec, dims: int) -> Iterator[None]:
    """Name the index, and the reason as faiss puts it, without its source lines."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = re.split(r"failed: |\.cpp:\d+: (?:Error: )?", str(error))[-1].strip().rstrip(".")
        what = f"The index {spec.factory} of descriptors of {dims} dimensions cannot be made: {reason}."
        raise OpenIliasError(what, fix=_EXAMPLES) from None


def _file_size(index: Any) -> int:
    """Return how many bytes the file of an index would have."""
    faiss = untyped_faiss()
    sizes: list[int] = []
    faiss.write_index(index, faiss.PyCallbackIOWriter(lambda part: sizes.append(len(part))))
    return sum(sizes)


def _manifest_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read(path: Path, made_from: dict[str, Any], *, overwrite: bool) -> Built | None:
    """Return the index of a file, None if there is none or it is to be replaced.

    Raises:
        OpenIliasError: the file holds the index of something else, is damaged, or is no index.
    """
    there = _manifest_of(path).exists()
    if path.exists() and not there:
        raise OpenIliasError("This file is no index made by ilias.", where=path, fix="Give another --index-file.")
    manifest = read_manifest(_manifest_of(path), kind=KIND) if there else {}
    if not path.exists():  # its writer was killed
        return None
    if manifest.get("fingerprint") != fingerprint(made_from):
        if overwrite:
            return None
        changed = differences(manifest["made_from"], made_from)
        raise OpenIliasError(
            "This index was made from something else:\n    " + "\n    ".join(changed[:12]),
            where=path,
            fix="Give another --index-file, or --overwrite to replace it.",
        )
    try:
        if sha256_of(path) != manifest["sha256"]:
            raise ValueError("it is not as it was written")
        return Built(untyped_faiss().read_index(str(path)), **manifest["built"])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if overwrite:
            return None
        raise OpenIliasError(
            f"This index cannot be read: {error}.", where=path, fix="Make it again with --overwrite."
        ) from None


def _write(built: Built, path: Path, made_from: dict[str, Any]) -> None:
    with told_if_full(path), atomic_path(path) as temporary:
        try:
            untyped_faiss().write_index(built.index, str(temporary))
        except RuntimeError as error:
            raise OSError(None, str(error).splitlines()[0]) from None
        # The manifest comes first: an index without one is somebody else's file.
        write_manifest(
            _manifest_of(path),
            kind=KIND,
            made_from=made_from,
            sha256=sha256_of(temporary),
            built={name: value for name, value in vars(built).items() if name != "index"},
        )
