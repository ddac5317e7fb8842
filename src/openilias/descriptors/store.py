"""The descriptor store: a folder of shards, each whole or absent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, read_json, sha256_of, write_json
from openilias.core.ids import PARTITIONS, Partition
from openilias.core.manifests import read_manifest

KIND = "descriptor store"
MANIFEST = "manifest.json"
FILES = r"\d{5,}\.(npy|ids\.parquet|json)"
BLOCK_BYTES = 32 << 20
"""Descriptors are read in blocks of about this size."""

Floats = npt.NDArray[np.floating]

SkipStatus = Literal["unreadable", "unusable", "timeout", "crash"]
"""Why a sample was passed over: its bytes are no image; its tar member cannot be used; it took too long to read; the
process that read it died. The first, third and fourth can be tried again."""


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be described, and why."""

    id: str
    reason: str
    status: SkipStatus = "unreadable"


class Shard(Interface):
    """The descriptors of one source, in its order: a shard of a store, or an official HDF5 file."""

    @property
    def source(self) -> str:
        """Its name."""

    @property
    def where(self) -> Path:
        """The file, or the folder of the store."""

    @property
    def rows(self) -> int:
        """How many descriptors there are."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 or float32."""

    @property
    def sha256(self) -> str:
        """Of the descriptors, or of the whole file."""

    @property
    def ids_sha256(self) -> str:
        """Of the ids, if they are a file of their own."""

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Samples that could not be described."""

    @property
    def mapped(self) -> bool:
        """Whether blocks are views of a file, which take no memory of their own."""

    def verify(self) -> None:
        """Raise OpenIliasError if it is not as it was."""

    def blocks(self, rows: int | None = None) -> Iterator[Floats]:
        """Yield (n, D) blocks of about ``rows`` rows, or of :data:`BLOCK_BYTES`; never much more is in memory."""

    def id_array(self) -> Any:
        """Return the ids of the rows as a pyarrow.ChunkedArray of strings."""

    def ids(self) -> list[str]:
        """Return the ids of the rows."""


@dataclass(frozen=True)
class StoreShard:
    """One finished shard."""

    folder: Path
    number: int
    source: str
    rows: int
    sha256: str
    ids_sha256: str
    skipped: tuple[Skipped, ...]

    @property
    def where(self) -> Path:
        """The folder of the store."""
        return self.folder

    @property
    def mapped(self) -> bool:
        """Blocks are views of a file, which take no memory of their own."""
        return True

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 or float32."""
        return self.descriptors().dtype

    def verify(self) -> None:
        """Compare the files with the digests of the marker.

        Raises:
            OpenIliasError: they differ, or a file is missing.
        """
        for ending, digest in ((".npy", self.sha256), (".ids.parquet", self.ids_sha256)):
            path = self.folder / f"{self.number:05d}{ending}"
            if not path.is_file() or sha256_of(path) != digest:
                raise OpenIliasError("This file is missing, or not as it was written.", where=path, fix=_AGAIN)

    def descriptors(self) -> npt.NDArray[np.floating]:
        """Return (rows, D), memory-mapped.

        Raises:
            OpenIliasError: the file is missing, truncated, or not what its marker says.
        """
        path = self.folder / f"{self.number:05d}.npy"
        try:
            array: npt.NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise OpenIliasError(f"These descriptors cannot be read: {error}.", where=path, fix=_AGAIN) from None
        if array.ndim != 2 or len(array) != self.rows or array.dtype not in (np.float16, np.float32):
            raise OpenIliasError(
                f"Expected {self.rows} rows of float16 or float32, found {array.shape} {array.dtype}.",
                where=path,
                fix=_AGAIN,
            )
        return array

    def blocks(self, rows: int | None = None) -> Iterator[Floats]:
        """Yield (n, D) blocks of ``rows`` rows, memory-mapped, as :meth:`descriptors`."""
        array = self.descriptors()
        step = rows or rows_of_block(array.shape[1], array.dtype)
        for start in range(0, len(array), step):
            yield array[start : start + step]

    def ids(self) -> list[str]:
        """Return the ids of the rows, as :meth:`id_array`."""
        ids: list[str] = self.id_array().to_pylist()
        return ids

    def id_array(self) -> Any:
        """Return the ids of the rows as a pyarrow.ChunkedArray of strings.

        Raises:
            OpenIliasError: the file is missing or broken, or its length is not that of the shard.
        """
        path = self.folder / f"{self.number:05d}.ids.parquet"
        try:
            ids = pq.read_table(path, columns=["id"])["id"]
        except (OSError, KeyError, pa.ArrowException) as error:
            raise OpenIliasError(f"These ids cannot be read: {error}.", where=path, fix=_AGAIN) from None
        if len(ids) != self.rows:
            raise OpenIliasError(f"Expected {self.rows} ids, found {len(ids)}.", where=path, fix=_AGAIN)
        return ids


_AGAIN = "Make the store again with --overwrite: only shards that are damaged are redone."


def rows_of_block(dims: int, dtype: np.dtype[Any]) -> int:
    """Return how many rows make a block of :data:`BLOCK_BYTES`."""
    return max(1, BLOCK_BYTES // max(dims * dtype.itemsize, 1))


def write_shard(
    folder: Path,
    number: int,
    *,
    source: str,
    ids: Sequence[str],
    descriptors: Floats,
    skipped: Sequence[Skipped],
) -> None:
    """Write one shard, as :func:`write_blocks`."""
    write_blocks(
        folder,
        number,
        source=source,
        ids=pa.array(list(ids), pa.string()),
        blocks=[descriptors],
        shape=descriptors.shape,
        dtype=descriptors.dtype,
        skipped=skipped,
    )


def write_blocks(
    folder: Path,
    number: int,
    *,
    source: str,
    ids: Any,
    blocks: Iterable[Floats],
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    skipped: Sequence[Skipped],
) -> None:
    """Write one shard, its marker last; if that fails, nothing of it is left, or what was there before.

    Args:
        folder: the store.
        number: of the shard.
        source: what the marker says it was made of.
        ids: pyarrow strings, as many as rows.
        blocks: (n, D) arrays, together (N, D); cast to ``dtype``.
        shape: (N, D).
        dtype: of the file.
        skipped: what could not be described.

    Raises:
        OpenIliasError: the disk is full, or cannot be written.
    """
    array_path, ids_path, marker = (folder / f"{number:05d}{end}" for end in (".npy", ".ids.parquet", ".json"))
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with told_if_full(array_path), atomic_path(array_path) as array_made, atomic_path(ids_path) as ids_made:
        with array_made.open("wb") as handle:
            np.lib.format.write_array_header_1_0(handle, header)
            for block in blocks:
                handle.write(np.ascontiguousarray(block, dtype).data)
        with told_if_full(ids_path):
            pq.write_table(pa.table({"id": ids}), ids_made)
        # A marker stands only beside the files it was written for; what was there before is kept up to here.
        marker.unlink(missing_ok=True)
    try:
        with told_if_full(marker):
            write_json(
                marker,
                {
                    "rows": len(ids),
                    "sha256": sha256_of(array_path),
                    "ids_sha256": sha256_of(ids_path),
                    "source": source,
                    "skipped": [asdict(item) for item in skipped],
                },
            )
    except BaseException:
        for path in (array_path, ids_path):
            path.unlink(missing_ok=True)
        raise


@contextmanager
def told_if_full(target: Path) -> Iterator[None]:
    """Say which file could not be written, and why: libraries name neither.

    Raises:
        OpenIliasError: in place of any OSError of the block.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise OpenIliasError(
            f"This file cannot be written: {reason}.",
            where=target,
            fix="Make room, or give another --out; then run the same command again: what is finished is kept.",
        ) from None


def read_marker(folder: Path, number: int) -> StoreShard | None:
    """Return a finished shard, None if it is not finished.

    Raises:
        OpenIliasError: the marker is broken.
    """
    path = folder / f"{number:05d}.json"
    if not path.exists():
        return None
    marker = read_json(path)
    try:
        skipped = tuple(Skipped(**entry) for entry in marker["skipped"])
        if type(marker["rows"]) is not int or marker["rows"] < 0:
            raise ValueError(f"{marker['rows']!r} rows")
        return StoreShard(
            folder,
            number,
            marker["source"],
            marker["rows"],
            marker["sha256"],
            marker["ids_sha256"],
            skipped,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise OpenIliasError(f"This done marker is broken: {error!r}.", where=path, fix=_AGAIN) from None


def finished_shard(folder: Path, number: int, *, check: bool) -> StoreShard | None:
    """Return a finished shard, None if it is not finished; with ``check`` a damaged one is taken for not finished.

    Raises:
        OpenIliasError: the marker is broken, and ``check`` is False.
    """
    try:
        shard = read_marker(folder, number)
        if shard is not None and check:
            shard.verify()
    except OpenIliasError:
        if not check:
            raise
        return None
    return shard


@dataclass(frozen=True)
class DescriptorStore:
    """An opened store, all of whose shards are there; or official HDF5 files in place of one.

    Attributes:
        folder: where it is: a folder, or one official file.
        manifest: who made it, from what.
        shards: in the order of the source.
    """

    folder: Path
    manifest: Mapping[str, Any]
    shards: tuple[Shard, ...]

    @property
    def partition(self) -> Partition:
        """Which partition of the benchmark it describes."""
        partition: Partition = self.manifest["made_from"]["partition"]
        return partition

    @property
    def fingerprint(self) -> str:
        """Of what it was made from."""
        return str(self.manifest["fingerprint"])

    @property
    def dims(self) -> int:
        """How many dimensions a descriptor has."""
        return int(self.manifest["dims"])

    @property
    def rows(self) -> int:
        """How many descriptors it holds."""
        return sum(shard.rows for shard in self.shards)

    @cached_property
    def skipped(self) -> tuple[Skipped, ...]:
        """Samples that could not be described."""
        return tuple(item for shard in self.shards for item in shard.skipped)

    def origin(self) -> dict[str, Any]:
        """What must agree between stores that are compared: all but what belongs to the partition itself."""
        own = ("partition", "contents", "skip_unreadable", "texts")
        return {key: value for key, value in self.manifest["made_from"].items() if key not in own}


def open_store(path: Path) -> DescriptorStore:
    """Open a finished store, one official HDF5 file, or a folder of official files of distractors.

    Raises:
        OpenIliasError: it is no store, or shards are missing: a part is never taken for the whole.
    """
    from openilias.descriptors import official

    path = Path(path)
    if official.is_official(path):
        return official.open_official(path)
    manifest = read_manifest(path / MANIFEST, kind=KIND)
    sources = manifest.get("sources")
    if not isinstance(sources, list) or manifest["made_from"].get("partition") not in PARTITIONS:
        raise OpenIliasError("This manifest is incomplete.", where=path, fix="Make the store again with --overwrite.")
    found = [read_marker(path, number) for number in range(len(sources))]
    missing = [source for source, shard in zip(sources, found, strict=True) if shard is None]
    if missing:
        raise OpenIliasError(
            f"{len(missing)} of {len(sources)} shards of this store are not finished: {first_few(missing)}.",
            where=path,
            fix="Run the command that makes it again: it continues where it was.",
        )
    return DescriptorStore(path, manifest, tuple(shard for shard in found if shard is not None))
