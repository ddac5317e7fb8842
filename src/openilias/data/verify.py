"""Verification: everything that is wrong with a benchmark, in one pass, by several processes, resumable."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import ordered_map, usable_cores
from openilias.core.files import atomic_path, is_there, read_bytes
from openilias.core.findings import SEVERITIES, Finding, Severity
from openilias.core.ids import object_of
from openilias.core.manifests import claim, write_manifest
from openilias.core.progress import progress
from openilias.core.shards import Share
from openilias.data.benchmark import Benchmark, SourceShard, TarItems
from openilias.data.duplicates import By, Duplicates, find_duplicates
from openilias.data.examine import Depth, Examined, Job, died, examine_items
from openilias.data.ilias import LISTS, MINI, find_ilias
from openilias.data.verify_core import check_core, check_distractor_folders, check_training
from openilias.data.verify_shards import (
    Part,
    Parts,
    absent_shards,
    against_list_loose,
    jobs_of,
    judge,
    scan_of,
    sizes_of,
    split_list,
    state_of,
)
from openilias.images.tar_index import scan_once
from openilias.images.tars import TarIndex

KIND = "verification"
MANIFEST, FINDINGS = "verify.json", "findings.jsonl"
_OURS = r"parts|listed|tar_index|findings\.jsonl"
_LONGEST_KEY = 255  # bytes of a key of the mini list
_TRIES = 3  # at parts that another process takes away
_SHOWN = 10  # places named of one duplicate


@dataclass(frozen=True)
class Verification:
    """The outcome.

    Attributes:
        counts: how many objects, images, shards and so on were looked at.
        kinds: (severity, kind) -> how many findings, errors first.
        findings: all of them, errors first.
    """

    counts: dict[str, int]
    kinds: dict[tuple[Severity, str], int]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return not any(severity == "error" for severity, _ in self.kinds)


def verify(
    root: Path,
    out: Path | None = None,
    *,
    depth: Depth = "pixels",
    partial: bool = False,
    workers: int | None = None,
    share: Share | None = None,
) -> Verification | None:
    """Reconcile everything there is of a benchmark in the ILIAS layout.

    Args:
        root: its folder.
        out: where the work is kept, so that a killed or repeated verification does each unchanged shard once:
            ``findings.jsonl``, ``verify.json`` and one part a shard. None keeps nothing.
        depth: ``pixels`` decodes every image; ``bytes`` reads and digests all files; ``headers`` reads no
            distractor, only the headers of the tars.
        partial: shards that are listed and not here are expected to be missing.
        workers: processes; all cores by default.
        share: do only this part of the shards, for another machine to finish; needs ``out``.

    Returns:
        the outcome; None if only a share of it was done.

    Raises:
        OpenIliasError: there is no benchmark at all, or ``out`` is in the way.
    """
    if workers is not None and workers < 1:
        raise OpenIliasError(f"There must be at least one worker, not {workers}.", fix="Give --workers 1 or more.")
    if share is not None and out is None:
        raise OpenIliasError("A share of the work must be kept somewhere.", fix="Give --out DIR.")
    reading = find_ilias(root)
    benchmark = reading.benchmark
    if out is not None:
        made_from = {"benchmark": str(root.resolve()), "depth": depth, "partial": partial}
        claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=True, ours=_OURS)
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ilias-verify-")))
        parts = Parts(folder)
        listed, of_list = "", tuple[Finding, ...]()
        if benchmark.id_list is not None:
            listed, of_list = split_list(benchmark.id_list, parts)
            if any(finding.kind == "list-unreadable" for finding in of_list):
                benchmark = replace(benchmark, id_list=None)  # half a list would name the other half as missing
        shards = [
            *benchmark.shards("image_queries"),
            *benchmark.shards("positives"),
            *benchmark.distractor_shards,
        ]
        states = {shard.name: state_of(shard, benchmark, depth, listed) for shard in shards}
        mine = shards if share is None else share.take(shards)
        _examine(mine, states, benchmark, depth, parts, workers or usable_cores())
        if share is not None and not share.everything:
            return None
        report = _Report(folder)
        report.add(finding for finding in reading.findings if finding.kind != "image-misnamed")
        report.add(of_list)
        report.add(check_core(benchmark, _core_sizes(benchmark, parts)))
        report.add(check_distractor_folders(benchmark))
        report.add(check_training(root))
        report.add(absent_shards(benchmark, parts, partial=partial))
        report.add(against_list_loose(benchmark, parts))
        found = _parts(shards, states, benchmark, depth, parts)
        report.add(finding for part in found for finding in part.findings)
        if depth != "headers":
            report.add(_duplicates(benchmark, shards, parts, depth))
        report.add(_mini(benchmark, parts, partial=partial))
        outcome = Verification(_counts(benchmark, shards, found), report.kinds, report.finish())
        if out is not None:
            write_manifest(out / MANIFEST, kind=KIND, made_from=made_from, **as_json(outcome))
        return outcome


def as_json(outcome: Verification) -> dict[str, Any]:
    """Return counts and findings as JSON values."""
    return {
        "sound": outcome.sound,
        "counts": outcome.counts,
        "kinds": [{"severity": s, "kind": kind, "count": count} for (s, kind), count in outcome.kinds.items()],
        "findings": [asdict(finding) for finding in outcome.findings],
    }


class _Report:
    """Gathers findings, each once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FINDINGS
        self._found: dict[Finding, None] = {}

    def add(self, findings: Iterable[Finding]) -> None:
        self._found.update(dict.fromkeys(findings))

    @property
    def kinds(self) -> dict[tuple[Severity, str], int]:
        counts = Counter((finding.severity, finding.kind) for finding in self._found)
        return dict(sorted(counts.items(), key=lambda pair: (SEVERITIES.index(pair[0][0]), pair[0][1])))

    def finish(self) -> tuple[Finding, ...]:
        ordered = tuple(sorted(self._found, key=lambda one: (SEVERITIES.index(one.severity), one.kind)))
        with atomic_path(self._path) as temporary, temporary.open("w", encoding="utf-8") as out:
            for finding in ordered:
                out.write(json.dumps(asdict(finding), ensure_ascii=False) + "\n")
        return ordered


def _examine(
    shards: list[SourceShard],
    states: dict[str, str],
    benchmark: Benchmark,
    depth: Depth,
    parts: Parts,
    workers: int,
) -> None:
    """Look at the shards that have no part yet; each part is written as soon as it is whole."""
    left = [shard for shard in shards if parts.read(shard, states[shard.name]) is None]
    if not left:
        return
    begun: dict[str, Any] = {}

    def jobs() -> Iterator[Job]:
        for shard in left:
            try:
                begun[shard.name] = scan = scan_of(shard, parts)
                yield from jobs_of(shard, scan, benchmark, depth)
            except OpenIliasError as error:
                begun[shard.name] = error
            yield Job(shard.name)  # closes the shard

    waiting = iter(left)
    seen: list[Examined] = []
    with (
        ordered_map(workers, lost=died) as run,
        progress("verify", total=None, unit="images") as step,
    ):
        for one in _none_lost(run, jobs()):
            step(len(one.sizes))
            if len(one.sizes) or one.sha256 is not None or one.died:
                seen.append(one)
                continue
            shard = next(waiting)
            scan = begun.pop(shard.name)
            if isinstance(scan, OpenIliasError):
                finding = Finding("error", "shard-unreadable", str(shard.tar), scan.what, scan.fix)
                part = Part(states[shard.name], 0, 0, findings=(finding,))
            else:
                part = judge(shard, scan, seen, benchmark, parts, states[shard.name])
            parts.write(shard, part, seen)
            seen = []


def _none_lost(run: Callable[..., Iterator[Any]], jobs: Iterable[Job]) -> Iterator[Examined]:
    """Do the jobs; the images of a job whose process died are done one by one, to name the one that kills."""
    memory: dict[int, Job] = {}

    def numbered() -> Iterator[Job]:
        for number, job in enumerate(jobs):
            memory[number] = job
            yield job

    for number, one in enumerate(run(examine_items, numbered())):
        job = memory.pop(number)
        if one.died and len(job.items) > 1:
            singles = [Job(job.shard, job.start + place, (item,), job.depth) for place, item in enumerate(job.items)]
            yield from run(examine_items, singles)
        else:
            yield one


def _parts(
    shards: list[SourceShard], states: dict[str, str], benchmark: Benchmark, depth: Depth, parts: Parts
) -> list[Part]:
    """Read the parts of all shards; what another process takes away meanwhile is made again."""
    for _ in range(_TRIES):
        found = [parts.read(shard, states[shard.name]) for shard in shards]
        whole = [part for part in found if part is not None]
        if len(whole) == len(shards):
            return whole
        _examine(shards, states, benchmark, depth, parts, 1)
    raise OpenIliasError(
        "Another verification with other settings is at work in this folder.",
        where=parts.folder,
        fix="Give another --out.",
    )


def _core_sizes(benchmark: Benchmark, parts: Parts) -> dict[str, tuple[int, int]]:
    sizes: dict[str, tuple[int, int]] = {}
    for shard in (*benchmark.shards("image_queries"), *benchmark.shards("positives")):
        sizes |= sizes_of(shard.files, parts.sizes(shard))
    return sizes


def _counts(benchmark: Benchmark, shards: list[SourceShard], found: list[Part]) -> dict[str, int]:
    distractors = sum(
        part.images for shard, part in zip(shards, found, strict=True) if shard.partition == "distractors"
    )
    return {
        "objects": len(benchmark.relevance),
        "image_queries": len(benchmark.image_queries),
        "text_queries": len(benchmark.text_queries),
        "positives": len(benchmark.positives),
        "distractors": distractors,
        "tar_shards": sum(shard.tar is not None for shard in shards),
        "unreadable": sum(part.unreadable for part in found),
    }


def _duplicates(benchmark: Benchmark, shards: list[SourceShard], parts: Parts, depth: Depth) -> Iterator[Finding]:
    kinds: tuple[By, ...] = ("bytes", "pixels") if depth == "pixels" else ("bytes",)
    found = [one for by in kinds for one in find_duplicates([parts.digests(shard, by) for shard in shards], by)]
    wanted: dict[int, set[int]] = {}
    for one in found:
        for number, row in _named(one, shards):
            wanted.setdefault(number, set()).add(row)
    ids: dict[tuple[int, int], str] = {}
    for number, rows in sorted(wanted.items()):  # each shard is opened once
        shard = shards[number]
        items = shard.files if shard.tar is None else TarItems(shard.name, shard.tar, _index(shard, parts))
        ids |= {(number, row): items[row].id for row in rows}
    for one in found:
        yield from _duplicate(one, [ids[place] for place in _named(one, shards)], shards)


def _index(shard: SourceShard, parts: Parts) -> TarIndex:
    scan = scan_of(shard, parts)
    if scan is None:
        raise AssertionError(f"{shard.name} is no tar")
    return scan.index


def _named(found: Duplicates, shards: list[SourceShard]) -> list[tuple[int, int]]:
    """Return the places that are named: all among the objects, and the first few among the distractors."""
    core = [place for place in found.places if shards[place[0]].partition != "distractors"]
    others = [place for place in found.places if shards[place[0]].partition == "distractors"]
    return core + others[:_SHOWN]


def _duplicate(found: Duplicates, named: list[str], shards: list[SourceShard]) -> Iterator[Finding]:
    """Yield a finding for each relation between the places of a picture."""
    core = [place for place in found.places if shards[place[0]].partition != "distractors"]
    items = named[: len(core)]
    same = "file" if found.by == "bytes" else "picture (other bytes, same pixels)"
    places = f"{len(found.places)} times: {first_few(named, most=_SHOWN)}"
    where = named[0]
    objects: dict[str, set[str]] = {}
    for item, (number, _) in zip(items, core, strict=True):
        objects.setdefault(object_of(item), set()).add(shards[number].partition)
    if len(objects) > 1:
        what = f"The same {same} belongs to {len(objects)} objects, {places}."
        yield Finding("error", "duplicate-objects", where, what, "Decide whose it is.")
    if core and len(core) < len(found.places):
        what = f"The same {same} is an object's and a distractor, {places}."
        yield Finding("error", "duplicate-distractor", where, what, "Take it out of the distractors.")
    if any(len(partitions) > 1 for partitions in objects.values()):
        what = f"The same {same} is a query and its positive, {places}."
        yield Finding("error", "duplicate-query", where, what, "Take it out of the positives.")
    elif len(core) > len(objects):
        yield Finding("warning", "duplicate-object", where, f"The same {same} stands {places}.")
    if not core:
        yield Finding("note", "duplicate-distractors", where, f"The same {same} stands {places}.")


def _mini(benchmark: Benchmark, parts: Parts, *, partial: bool) -> list[Finding]:
    """Look for the keys of the mini list among the shards."""
    path = benchmark.root / LISTS / MINI
    if not is_there(path):
        return []
    try:
        lines = [line.strip() for line in read_bytes(path).split(b"\n")]
    except OSError as error:
        return [Finding("error", "list-unreadable", str(path), f"This id file cannot be read: {error}.")]
    findings = []
    long = sum(len(line) > _LONGEST_KEY for line in lines)
    if long:
        what = f"{long} lines of this list have more than {_LONGEST_KEY} bytes, and are no keys."
        findings.append(Finding("error", "id-malformed", str(path), what))
    listed = np.array([line for line in lines if 0 < len(line) <= _LONGEST_KEY], np.bytes_)
    keys, counts = np.unique(listed, return_counts=True)
    if (counts > 1).any():
        twice = [key.decode(errors="backslashreplace") for key in keys[counts > 1]]
        what = f"{len(twice)} keys stand twice: {first_few(twice, most=10)}."
        findings.append(Finding("error", "id-duplicate", str(path), what))
    found = np.zeros(len(keys), bool)
    for shard in benchmark.distractor_shards:
        if shard.tar is None:
            here = [item.id.partition("/")[2].rpartition(".")[0] for item in shard.files]
        else:
            try:
                here = scan_once(shard.tar, parts.index).index.keys.to_pylist()
            except OpenIliasError:
                continue  # named already
        if len(keys) and here:
            names = np.array([key.encode() for key in here], np.bytes_)
            at = np.minimum(np.searchsorted(keys, names), len(keys) - 1)
            found[at[keys[at] == names]] = True
    missing = [key.decode(errors="backslashreplace") for key in keys[~found]]
    if missing:
        what = f"{len(missing)} of {len(keys)} keys are not in any shard here: {first_few(missing, most=10)}."
        severity: Severity = "note" if partial else "error"
        findings.append(Finding(severity, "mini-missing", str(path), what))
    return findings
