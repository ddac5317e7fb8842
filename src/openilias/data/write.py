"""Writing a benchmark, or a part of one, in the official layout: what is read back is what was written."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import ordered_map, usable_cores
from openilias.core.files import (
    atomic_folder,
    atomic_path,
    is_temporary,
    is_there,
    read_bytes,
    read_json,
    remove_temporaries,
    sha256_of,
    write_bytes,
    write_json,
)
from openilias.core.findings import refuse
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import FOLDER_PREFIX, object_of
from openilias.core.manifests import claim, contents_of_folder, read_manifest, replacing, write_manifest
from openilias.core.progress import progress
from openilias.data.benchmark import Benchmark, box_file
from openilias.data.ilias import (
    CHECKSUMS,
    DISTRACTORS,
    IMAGE_QUERIES,
    LISTS,
    MINI,
    POSITIVES,
    TEXT_QUERIES,
    WRITTEN,
    find_ilias,
    read_ilias,
)
from openilias.data.selection import Core, Plan, Selection, ShardPlan, make_plan, read_keys
from openilias.data.taxonomy import Taxonomy
from openilias.images.decode import MOST_BYTES
from openilias.images.tars import image_name, write_tar

KIND = "benchmark"
ALGORITHM_VERSION = 1
_MARKERS = ".written"
_OURS = r"(ilias_)?core|yfcc100m|distractors|image_ids|taxonomy\.json|checksums\.txt|\.written"


@dataclass(frozen=True)
class _Job:
    """One tar to write into ``out``."""

    plan: ShardPlan
    out: Path

    @property
    def target(self) -> Path:
        return self.out / self.plan.folder / self.plan.name

    @property
    def marker(self) -> Path:
        return self.out / _MARKERS / f"{self.plan.name}.json"


@dataclass(frozen=True)
class Written:
    """A benchmark that was written, as it is read back, and what the user should know of it."""

    benchmark: Benchmark
    notes: tuple[str, ...]


def write_benchmark(
    benchmark: Benchmark,
    out: Path,
    selection: Selection | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> Written:
    """Write a benchmark in the official layout; a killed writing continues with the shards that are left.

    Written are the objects with their boxes, urls and texts, tars (those kept whole byte by byte, and only if they
    have the checksum that is stated of them), all id lists with area coverage and clutter, the mini list, the
    taxonomy and the checksums of the tars. Until it is whole, the folder is refused as a benchmark.

    Args:
        benchmark: what to write.
        out: the folder to make; it must be empty, or hold what was written from this or, with ``overwrite``, from
            another benchmark.
        selection: which part of it.
        workers: processes, a shard each; all cores by default.
        overwrite: replace a benchmark that was written from something else.

    Raises:
        OpenIliasError: the selection names what is not there or leaves queries without positives, files are
            missing or not what their checksum says, or ``out`` is in the way.
    """
    selection = selection or Selection()
    if not benchmark.core.is_dir():
        raise OpenIliasError("Only the lists of this benchmark are here.", where=benchmark.root, fix="Complete it.")
    _check_place(benchmark.root, out)
    plan = make_plan(benchmark, selection)
    made_from = {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": benchmark.fingerprint,
        "annotations": benchmark.annotations,
        "files": fingerprint_lines(_files(benchmark)),
        "selection": _brief(selection),
    }
    state = claim(out, WRITTEN, kind=KIND, made_from=made_from, overwrite=overwrite, ours=_OURS)
    if state == "same" and not overwrite and _is_whole(out):
        return Written(read_ilias(out), _notes(out))

    def begun() -> bool:
        return (out / _MARKERS).is_dir() and any((out / _MARKERS).iterdir())

    with replacing(out, state, begun=begun):
        try:
            _write(benchmark, plan, selection, out, made_from, workers or usable_cores())
        except BaseException:
            if state != "same" and not begun():  # nothing is worth keeping
                for path in out.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise
    return Written(read_ilias(out), _notes(out))


def _check_place(root: Path, out: Path) -> None:
    source, target = root.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise OpenIliasError(
            "The benchmark cannot be written over, into or around itself.", where=out, fix="Give another --out."
        )
    if out.is_dir() and not is_there(out / WRITTEN):
        others = sorted(entry.name for entry in out.iterdir() if not is_temporary(entry.name))
        if others:
            raise OpenIliasError(
                f"The output folder exists and holds no {KIND} that was written here: {first_few(others)}.",
                where=out,
                fix="Give another --out.",
            )


def _files(benchmark: Benchmark) -> Iterator[str]:
    """Yield names, sizes and times of all files that are written: a changed one makes another benchmark."""
    paths = [benchmark.root / LISTS / MINI]
    for item in (*benchmark.image_queries, *benchmark.text_queries, *benchmark.positives):
        paths += _files_of(benchmark, item)
    for shard in benchmark.distractor_shards:
        paths += [item.path for item in shard.files] if shard.tar is None else [shard.tar]
    for path in paths:
        if path.exists():
            facts = path.stat()
            yield f"{path.name} {facts.st_size} {facts.st_mtime_ns}"


def _files_of(benchmark: Benchmark, item: str) -> list[Path]:
    source = benchmark.path_of(item)
    beside = [] if item.endswith(".txt") else [box_file(source), source.with_name(f"{source.stem}_url.txt")]
    return [source, *(path for path in beside if path.exists())]


def _brief(selection: Selection) -> dict[str, Any]:
    """Return a selection as JSON values; long lists by their fingerprint."""
    value = selection.model_dump(mode="json")
    for name in ("ids", "objects"):
        if isinstance(value[name], list) and len(value[name]) > 20:
            value[name] = f"{len(value[name])} of fingerprint {fingerprint_lines(sorted(value[name]))}"
    return value


def _is_whole(out: Path) -> bool:
    """Tell whether a written benchmark is complete and still has all its files."""
    manifest = read_manifest(out / WRITTEN, kind=KIND)
    return bool(manifest.get("complete")) and manifest.get("contents") == contents_of_folder(out, ours=_OURS)


def _notes(out: Path) -> tuple[str, ...]:
    return tuple(read_manifest(out / WRITTEN, kind=KIND).get("notes", ()))


def _write(
    benchmark: Benchmark, plan: Plan, selection: Selection, out: Path, made_from: dict[str, Any], workers: int
) -> None:
    write_manifest(out / WRITTEN, kind=KIND, made_from=made_from, complete=False)
    remove_temporaries(out)
    jobs = [_Job(one, out) for one in plan.shards]
    with ordered_map(workers) as run, progress("write", total=len(jobs), unit="shards") as step:
        written = []
        for marker in run(_write_shard, jobs):
            written.append(marker)
            step()
    for item in plan.loose:
        target = out / FOLDER_PREFIX / item.path.name
        if not target.exists():
            write_bytes(target, item.read())
    written = sorted((marker for marker in written if marker["sha256"]), key=lambda marker: str(marker["name"]))
    notes = [*plan.notes, *_write_lists(benchmark, plan, selection, written, out)]
    _write_objects(benchmark, plan.core, out)
    refuse(one for one in find_ilias(out).findings if one.kind != "benchmark-unfinished")
    shutil.rmtree(out / _MARKERS, ignore_errors=True)
    contents = contents_of_folder(out, ours=_OURS)
    write_manifest(out / WRITTEN, kind=KIND, made_from=made_from, complete=True, contents=contents, notes=notes)


def _write_shard(job: _Job) -> dict[str, Any]:
    """Write one tar, its keys, and its marker: name, folder, SHA-256, how many images."""
    if job.marker.exists():
        kept: dict[str, Any] = read_json(job.marker)
        if kept["size"] == (job.target.stat().st_size if job.target.exists() else 0):
            return kept
    shard, keep = job.plan.shard, job.plan.keep
    items = shard.items()
    prefix = len(shard.name) + 1
    members = [(image_name(item.path.stem if shard.tar is None else item.id[prefix:]), item) for item in items]
    if keep is not None:
        wanted = set(keep.tolist())
        members = [pair for pair in members if pair[0].removesuffix(".jpg").encode() in wanted]
        missing = sorted(key.decode() for key in wanted - {name.removesuffix(".jpg").encode() for name, _ in members})
        if missing and job.plan.all_of:
            raise OpenIliasError(f"{len(missing)} ids are not in this shard: {first_few(missing)}.", where=shard.tar)
    keys = [name.removesuffix(".jpg") for name, _ in members]
    digest = ""
    if keys or keep is None:
        with atomic_path(job.target) as temporary:
            if shard.tar is not None and keep is None:
                digest = _copy(shard.tar, temporary, job.plan.sha256)
            else:
                write_tar(temporary, ((name, item.read()) for name, item in members))
                digest = sha256_of(temporary)
    _write_text(job.marker.with_suffix(_KEYS), keys)
    size = job.target.stat().st_size if digest else 0
    marker = {"name": job.plan.name, "folder": job.plan.folder, "sha256": digest, "images": len(keys), "size": size}
    write_json(job.marker, marker)
    return marker


def _copy(source: Path, target: Path, stated: str) -> str:
    """Copy a tar piece by piece; return its SHA-256, which must be the stated one if there is one."""
    digest = hashlib.sha256()
    with source.open("rb") as old, target.open("wb") as new:
        while piece := old.read(2**20):
            digest.update(piece)
            new.write(piece)
    found = digest.hexdigest()
    if stated and stated != found:
        raise OpenIliasError(
            f"The SHA-256 of this shard is {found}, {stated} is stated.", where=source, fix="Download it again."
        )
    return found


_KEYS = ".keys"


def _keys_in(out: Path, marker: dict[str, Any]) -> list[bytes]:
    return (out / _MARKERS / f"{marker['name']}{_KEYS}").read_bytes().split(b"\n")[:-1]


def _write_text(path: Path, lines: Iterable[str]) -> None:
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def _write_lists(
    benchmark: Benchmark, plan: Plan, selection: Selection, written: list[dict[str, Any]], out: Path
) -> list[str]:
    core, lists = plan.core, out / LISTS
    if written:
        _write_text(out / CHECKSUMS, (f"{m['sha256']}  {m['folder']}/{m['name']}" for m in written))
    if benchmark.taxonomy.nodes:
        write_json(out / "taxonomy.json", _tree(benchmark.taxonomy, core.objects))
    if written or plan.loose:
        # No time in the header: the same ids are the same bytes.
        with (
            atomic_path(lists / DISTRACTORS) as temporary,
            temporary.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        ):
            packed.write("".join(f"{item.id}\n" for item in plan.loose).encode())
            for marker in written:
                name = str(marker["name"]).encode()
                packed.write(b"".join(name + b"/" + key + b"\n" for key in _keys_in(out, marker)))
    notes = []
    mini = benchmark.root / LISTS / MINI
    if is_there(mini):
        lines = [line.strip() for line in read_bytes(mini).split(b"\n") if line.strip()]
        left = _mini_left(mini, plan, out, written) if selection != Selection() else set(lines)
        kept = [line for line in lines if line in left]
        write_bytes(lists / MINI, b"".join(line + b"\n" for line in kept))
        if selection.mini and len(kept) < len(lines):
            notes.append(f"{len(lines) - len(kept)} of {len(lines)} keys of the mini list are in none of the shards")
    _write_text(lists / IMAGE_QUERIES, (f"{item},{object_of(item)}" for item in core.image_queries))
    _write_text(lists / TEXT_QUERIES, core.text_queries)
    _write_text(lists / POSITIVES, _attribute_lines(benchmark, core.positives))
    return notes


def _mini_left(mini: Path, plan: Plan, out: Path, written: list[dict[str, Any]]) -> set[bytes]:
    """Return the keys of the mini list that are in a part of a benchmark."""
    keys = read_keys(mini)
    left = set(np.intersect1d(keys, np.array([item.path.stem.encode() for item in plan.loose], np.bytes_)).tolist())
    for marker in written:
        left.update(np.intersect1d(keys, np.array(_keys_in(out, marker), np.bytes_)).tolist())
    return left


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


def _write_objects(benchmark: Benchmark, core: Core, out: Path) -> None:
    with atomic_folder(out / benchmark.core.name) as folder:
        for item in (*core.image_queries, *core.text_queries, *core.positives):
            for path in _files_of(benchmark, item):
                target = folder / Path(item).parent / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    target.write_bytes(read_bytes(path, most=MOST_BYTES))
                except OSError as error:
                    raise OpenIliasError(
                        f"A file of the benchmark cannot be read: {error.strerror}.",
                        where=path,
                        fix="See all that is wrong with: ilias data verify",
                    ) from None
