"""Writing a benchmark, or a part of one, in the official layout: what is read back is what was written."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import ordered_map
from openilias.core.files import atomic_folder, atomic_path, read_json, sha256_of, write_bytes, write_json
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import FOLDER_PREFIX, object_of
from openilias.core.manifests import claim, read_manifest, write_manifest
from openilias.core.progress import progress
from openilias.data.benchmark import Benchmark, Item, SourceShard, box_file
from openilias.data.ilias import DISTRACTORS, IMAGE_QUERIES, LISTS, MINI, POSITIVES, TEXT_QUERIES, read_ilias
from openilias.data.taxonomy import Taxonomy
from openilias.images.files import read_file
from openilias.images.tars import image_name, write_tar

KIND = "benchmark"
MANIFEST = "benchmark.json"
ALGORITHM_VERSION = 1
_MARKERS = ".written"
_KEYS = ".keys"
_OURS = r"(ilias_)?core|yfcc100m|distractors|image_ids|taxonomy\.json|checksums\.txt|\.written"


class Selection(BaseModel, frozen=True, extra="forbid"):
    """Which part of a benchmark; everything by default.

    Attributes:
        objects: names of the objects to keep, or how many of the first; the distractors stay.
        ids: the queries, positives and distractors to keep; nothing else stays.
        shards: how many of the first shards of distractors to keep.
        mini: keep the distractors of ``mini_ilias_yfcc100m_ids.txt``.
        pack: put distractors that are files of a folder into tars of so many images; their ids become
            ``<tar>/<name without ending>``.
    """

    objects: tuple[str, ...] | Annotated[int, Field(ge=1)] | None = None
    ids: tuple[str, ...] | None = None
    shards: Annotated[int, Field(ge=0)] | None = None
    mini: bool = False
    pack: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class _Core:
    image_queries: tuple[str, ...]
    text_queries: tuple[str, ...]
    positives: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """One shard of distractors to write: all of it (``keep`` None), or the images of some keys, sorted bytes."""

    shard: SourceShard
    target: Path
    marker: Path
    keep: npt.NDArray[np.bytes_] | None


def write_benchmark(
    benchmark: Benchmark,
    out: Path,
    selection: Selection | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> Benchmark:
    """Write a benchmark in the official layout; a killed writing continues with the shards that are left.

    Written are the objects with their boxes, urls and texts, tars (those kept whole byte by byte), all id lists
    with area coverage and clutter, the mini list, the taxonomy and the checksums of the tars. Until the end the
    folder lacks its lists and its objects, and is no benchmark.

    Args:
        benchmark: what to write.
        out: the folder to make.
        selection: which part of it.
        workers: processes, a shard each; all cores by default.
        overwrite: replace a benchmark that was written from something else.

    Returns:
        the benchmark as it is read back.

    Raises:
        OpenIliasError: the selection names what is not there or leaves queries without positives, files are
            missing, or ``out`` is in the way.
    """
    selection = selection or Selection()
    if not benchmark.core.is_dir():
        raise OpenIliasError("Only the lists of this benchmark are here.", where=benchmark.root, fix="Complete it.")
    core = _select_core(benchmark, selection)
    made_from = {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": benchmark.fingerprint,
        "annotations": benchmark.annotations,
        "selection": _brief(selection),
    }
    state = claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=overwrite, ours=_OURS)
    if state == "same" and read_manifest(out / MANIFEST, kind=KIND).get("complete"):
        return read_ilias(out)
    if state == "other":
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(out / MANIFEST, kind=KIND, made_from=made_from, complete=False)
    written = _write_shards(benchmark, selection, out, workers or os.cpu_count() or 1)
    _write_lists(benchmark, core, selection, written, out)
    _write_objects(benchmark, core, out)
    write_manifest(out / MANIFEST, kind=KIND, made_from=made_from, complete=True)
    shutil.rmtree(out / _MARKERS, ignore_errors=True)
    return read_ilias(out)


def _brief(selection: Selection) -> dict[str, Any]:
    """Return a selection as JSON values; long lists by their fingerprint."""
    value = selection.model_dump(mode="json")
    for name in ("ids", "objects"):
        if isinstance(value[name], list) and len(value[name]) > 20:
            value[name] = f"{len(value[name])} of fingerprint {fingerprint_lines(sorted(value[name]))}"
    return value


def _select_core(benchmark: Benchmark, selection: Selection) -> _Core:
    """Return the ids of the objects that stay."""
    names = set(benchmark.relevance) | {object_of(item) for item in benchmark.image_queries + benchmark.text_queries}
    if isinstance(selection.objects, int):
        if selection.objects > len(names):
            raise OpenIliasError(f"There are {len(names)} objects, not {selection.objects}.", where=benchmark.root)
        names = set(sorted(names)[: selection.objects])
    elif selection.objects is not None:
        unknown = sorted(set(selection.objects) - names)
        if unknown:
            raise OpenIliasError(f"These objects are not here: {first_few(unknown)}.", where=benchmark.root)
        names = set(selection.objects)
    wanted = None if selection.ids is None else set(selection.ids)
    if wanted is not None:
        core = {*benchmark.image_queries, *benchmark.text_queries, *benchmark.positives}
        unknown = benchmark.unknown(wanted - core)
        if unknown:
            raise OpenIliasError(f"These ids are not here: {first_few(unknown)}.", where=benchmark.root)

    def kept(items: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(item for item in items if object_of(item) in names and (wanted is None or item in wanted))

    chosen = _Core(kept(benchmark.image_queries), kept(benchmark.text_queries), kept(benchmark.positives))
    queries = {object_of(item) for item in (*chosen.image_queries, *chosen.text_queries)}
    lone = sorted(queries - {object_of(item) for item in chosen.positives})
    if not queries or lone:
        raise OpenIliasError(
            f"The selection leaves queries without positives: {first_few(lone)}."
            if lone
            else "The selection leaves no queries.",
            where=benchmark.root,
            fix="Select their positives too.",
        )
    return chosen


def _keys_of(lines: Iterable[bytes]) -> npt.NDArray[np.bytes_]:
    keys = np.char.strip(np.array(list(lines) or [b""], np.bytes_))
    return np.unique(keys[keys != b""])


def _write_shards(benchmark: Benchmark, selection: Selection, out: Path, workers: int) -> list[dict[str, Any]]:
    """Write the distractors; return what the marker of each tar with images says, in canonical order."""
    keep = None
    if selection.mini:
        path = benchmark.root / LISTS / MINI
        if not path.exists():
            raise OpenIliasError("This benchmark has no mini list.", where=path, fix="Download it.")
        keep = _keys_of(path.read_bytes().split(b"\n"))
    chosen = benchmark.distractor_shards[: selection.shards]
    wanted: dict[str, list[bytes]] | None = None
    if selection.ids is not None:
        wanted = {}
        for name in selection.ids:
            source, _, key = name.partition("/")
            wanted.setdefault(source, []).append(key.encode())
    jobs, loose = [], []
    for shard in chosen:
        if shard.tar is None:
            loose += _loose(shard.files, wanted, keep)
            continue
        keys = keep
        if wanted is not None:
            listed = _keys_of(wanted.get(shard.name, []))
            keys = listed if keep is None else np.intersect1d(listed, keep)
        target = out / shard.tar.parent.name / shard.name
        jobs.append(_Job(shard, target, out / _MARKERS / f"{shard.name}.json", keys))
    if selection.pack is not None:
        jobs += _packed(loose, selection.pack, out)
        loose = []
    with ordered_map(workers) as run, progress("write", total=len(jobs), unit="shards") as step:
        written = []
        for marker in run(_write_shard, jobs):
            written.append(marker)
            step()
    for item in loose:
        target = out / FOLDER_PREFIX / item.path.name
        if not target.exists():
            write_bytes(target, item.read())
    return sorted((marker for marker in written if marker["images"]), key=lambda marker: str(marker["name"]))


def _loose(
    items: Sequence[Item], wanted: dict[str, list[bytes]] | None, keep: npt.NDArray[np.bytes_] | None
) -> list[Item]:
    if wanted is not None:
        names = set(wanted.get(FOLDER_PREFIX.rstrip("/"), ()))
        items = [item for item in items if item.path.name.encode() in names]
    if keep is not None:
        mini = set(keep.tolist())
        items = [item for item in items if item.path.stem.encode() in mini]
    return list(items)


def _packed(loose: list[Item], size: int, out: Path) -> list[_Job]:
    """Cut loose distractors into shards to be written as tars."""
    jobs = []
    for start in range(0, len(loose), size):
        name = f"distractors_{start // size:04d}.tar"
        shard = SourceShard(name, "distractors", files=tuple(loose[start : start + size]))
        jobs.append(_Job(shard, out / FOLDER_PREFIX / name, out / _MARKERS / f"{name}.json", None))
    return jobs


def _write_shard(job: _Job) -> dict[str, Any]:
    """Write one tar, its keys, and its marker: name, folder, SHA-256, how many images."""
    if job.marker.exists() and job.target.exists():
        kept: dict[str, Any] = read_json(job.marker)
        return kept
    shard = job.shard
    items = shard.items()
    if shard.tar is None:
        members = [(image_name(item.path.stem), item) for item in items]
    else:
        prefix = len(shard.name) + 1
        members = [(image_name(item.id[prefix:]), item) for item in items]
        if job.keep is not None:
            keep = set(job.keep.tolist())
            members = [pair for pair in members if pair[0].removesuffix(".jpg").encode() in keep]
    keys = [name.removesuffix(".jpg") for name, _ in members]
    digest = ""
    if keys:
        with atomic_path(job.target) as temporary:
            if shard.tar is not None and job.keep is None:
                digest = _copy(shard.tar, temporary)
            else:
                write_tar(temporary, ((name, item.read()) for name, item in members))
                digest = sha256_of(temporary)
    _write_text(job.marker.with_suffix(_KEYS), keys)
    marker = {"name": job.target.name, "folder": job.target.parent.name, "sha256": digest, "images": len(keys)}
    write_json(job.marker, marker)
    return marker


def _keys_in(out: Path, marker: dict[str, Any]) -> list[bytes]:
    return (out / _MARKERS / f"{marker['name']}{_KEYS}").read_bytes().split(b"\n")[:-1]


def _copy(source: Path, target: Path) -> str:
    """Copy a file piece by piece; return its SHA-256."""
    digest = hashlib.sha256()
    with source.open("rb") as old, target.open("wb") as new:
        while piece := old.read(2**20):
            digest.update(piece)
            new.write(piece)
    return digest.hexdigest()


def _write_text(path: Path, lines: Iterable[str]) -> None:
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def _write_lists(
    benchmark: Benchmark, core: _Core, selection: Selection, written: list[dict[str, Any]], out: Path
) -> None:
    if written:
        _write_text(out / "checksums.txt", (f"{m['sha256']}  {m['folder']}/{m['name']}" for m in written))
    names = {object_of(item) for item in (*core.image_queries, *core.text_queries, *core.positives)}
    if benchmark.taxonomy.nodes:
        write_json(out / "taxonomy.json", _tree(benchmark.taxonomy, names))
    lists = out / LISTS
    if written:
        # No time in the header: the same ids are the same bytes.
        with (
            atomic_path(lists / DISTRACTORS) as temporary,
            temporary.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        ):
            for marker in written:
                name = str(marker["name"]).encode()
                packed.write(b"".join(name + b"/" + key + b"\n" for key in _keys_in(out, marker)))
    mini = benchmark.root / LISTS / MINI
    if mini.exists():
        write_bytes(lists / MINI, b"".join(line + b"\n" for line in _mini_left(mini, out, written, selection)))
    _write_text(lists / IMAGE_QUERIES, (f"{item},{object_of(item)}" for item in core.image_queries))
    _write_text(lists / TEXT_QUERIES, core.text_queries)
    _write_text(lists / POSITIVES, _attribute_lines(benchmark, core.positives))


def _mini_left(mini: Path, out: Path, written: list[dict[str, Any]], selection: Selection) -> Iterator[bytes]:
    """Yield the keys of the mini list, of a part of a benchmark only those that are in it."""
    lines = [line.strip() for line in mini.read_bytes().split(b"\n")]
    if selection == Selection():
        yield from (line for line in lines if line)
        return
    keys = _keys_of(lines)
    left: set[bytes] = set()
    for marker in written:
        left.update(np.intersect1d(keys, _keys_of(_keys_in(out, marker))).tolist())
    yield from (line for line in lines if line in left)


def _attribute_lines(benchmark: Benchmark, positives: Iterable[str]) -> Iterator[str]:
    for item in positives:
        known = benchmark.attributes[item]
        coverage = "" if known.coverage is None else repr(known.coverage)
        yield f"{item},{coverage},{'' if known.clutter is None else known.clutter}"


def _tree(taxonomy: Taxonomy, names: set[str]) -> dict[str, dict[str, dict[str, list[str]]]]:
    tree: dict[str, dict[str, dict[str, list[str]]]] = {}
    for name, (coarse, mid, fine) in taxonomy.nodes.items():
        if name in names:
            tree.setdefault(coarse, {}).setdefault(mid, {}).setdefault(fine, []).append(name)
    return tree


def _write_objects(benchmark: Benchmark, core: _Core, out: Path) -> None:
    with atomic_folder(out / benchmark.core.name) as folder:
        for item in (*core.image_queries, *core.text_queries, *core.positives):
            source = benchmark.path_of(item)
            files = [source]
            if not item.endswith(".txt"):
                files += [box_file(source), source.with_name(f"{source.stem}_url.txt")]
            for path in files:
                if path != source and not path.exists():
                    continue
                target = folder / Path(item).parent / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.write_bytes(read_file(path))
                except OSError as error:
                    raise OpenIliasError(
                        f"A file of the benchmark cannot be read: {error.strerror}.",
                        where=path,
                        fix="See all that is wrong with: ilias data verify",
                    ) from None
