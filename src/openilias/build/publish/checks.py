"""Everything that is looked at before anything is published; all that is wrong is found, not just the first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from openilias.build.publish.core_files import CoreFacts, check_core_files, core_lost
from openilias.build.publish.decisions import BUILD, Decisions, find_decisions
from openilias.build.publish.settings import CheckSettings, PublishSettings
from openilias.build.publish.shards import ShardFacts, ShardJob, check_shard, shard_lost, state_of, unknown_licences
from openilias.build.stored import CORE_ROWS, ROWS
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import ordered_map
from openilias.core.files import open_regular, sha256_of
from openilias.core.findings import Finding, Severity
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import object_of
from openilias.core.progress import progress
from openilias.data.benchmark import Benchmark
from openilias.data.ilias import LISTS, MINI, find_ilias
from openilias.data.published_places import SHARDS, shard_number
from openilias.data.unpack import ALIKE, alike
from openilias.data.verify import verify
from openilias.images.tar_index import scan_once

STATE = f"{BUILD}/publish"  # of the set: what was found, by file; it may be removed at any time
_SHARD_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LONGEST_KEY = 255


@dataclass(frozen=True)
class MiniList:
    """A list of some of the distractors: its file, how many ids it has, and the fingerprint of its lines."""

    path: Path
    count: int
    fingerprint: str

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name


@dataclass(frozen=True)
class Checked:
    """A set, and what was found of it.

    Attributes:
        benchmark: the set.
        decisions: what people decided.
        core: the objects.
        shards: of distractors, by name.
        cameras: camera -> distractors; empty where it is not known.
        minis: lists of some of the distractors.
        findings: all that is wrong; nothing is published while an error is among them.
    """

    benchmark: Benchmark
    decisions: Decisions
    core: CoreFacts
    shards: tuple[ShardFacts, ...]
    cameras: dict[str, int]
    minis: tuple[MiniList, ...]
    findings: tuple[Finding, ...]

    @property
    def root(self) -> Path:
        """The folder of the set."""
        return self.benchmark.root

    @property
    def unknown_licences(self) -> int:
        """Images whose licence nobody knows."""
        return self.core.unknown_licences + sum(map(unknown_licences, self.shards))


def check_files(root: Path, settings: PublishSettings, *, workers: int) -> Checked:
    """Look at every byte that would be published; what was found of a shard is kept, and not looked for again.

    Raises:
        OpenIliasError: there is no set.
    """
    reading = find_ilias(root)
    benchmark = reading.benchmark
    findings = list(reading.findings)
    if not benchmark.core.is_dir():
        raise OpenIliasError("The objects of this set are not here.", where=root, fix="Give a whole set.")
    queries = (*benchmark.image_queries, *benchmark.text_queries)
    objects = benchmark.relevance.keys() | {object_of(item) for item in queries}
    images = {*benchmark.image_queries, *benchmark.positives}
    decisions, more = find_decisions(root, set(objects), images, allow_open=settings.allow_open)
    findings += more
    findings += _check_shard_names(benchmark)
    with ordered_map(workers, lost=core_lost) as run:
        core, more = check_core_files(
            benchmark,
            decisions,
            run,
            licence=settings.licence,
            longest=settings.longest,
            quality=settings.quality,
        )
    findings += more
    shards, cameras = _check_shards(benchmark, settings, workers)
    findings += [finding for shard in shards for finding in shard.findings]
    minis, of_minis = _check_minis(benchmark)
    checked = Checked(benchmark, decisions, core, shards, cameras, minis, (*findings, *of_minis))
    return _with(checked, _check_licences(checked, settings))


def _with(checked: Checked, findings: list[Finding]) -> Checked:
    return replace(checked, findings=tuple(dict.fromkeys((*checked.findings, *findings))))


def verified(checked: Checked, settings: CheckSettings, *, workers: int) -> Checked:
    """Add what ``ilias data verify`` finds, and duplicates between all images."""
    kept = checked.root / STATE / "verify"
    outcome = verify(checked.root, kept, depth=settings.depth, workers=workers)
    if outcome is None:
        raise AssertionError("all of it was asked for")
    return _with(checked, [one for one in outcome.findings if one.severity != "note"])


def _check_shards(
    benchmark: Benchmark, settings: PublishSettings, workers: int
) -> tuple[tuple[ShardFacts, ...], dict[str, int]]:
    """Look at all shards; their cameras are added up as they come, for a thousand shards name them all."""
    jobs = _jobs(benchmark, settings)
    found = []
    cameras: Counter[str] = Counter()
    with ordered_map(workers, lost=shard_lost, ahead=1) as run, progress("check", total=None, unit="images") as step:
        for facts in run(check_shard, jobs):
            cameras.update(facts.cameras)
            found.append(replace(facts, cameras={}))
            step(facts.images)
    return tuple(found), dict(cameras)


def _jobs(benchmark: Benchmark, settings: PublishSettings) -> list[ShardJob]:
    return [
        ShardJob(
            tar=shard.tar,
            rows=benchmark.root / ROWS / f"{shard.name.removesuffix('.tar')}.parquet",
            kept=benchmark.root / STATE,
            longest=settings.longest,
            quality=settings.quality,
        )
        for shard in benchmark.distractor_shards
        if shard.tar is not None
    ]


def refuse_changes(checked: Checked, settings: PublishSettings) -> None:
    """Look at sizes and times once more: what is published must be what was checked.

    Raises:
        OpenIliasError: a shard or a table is another one by now.
    """
    changed = [
        job.tar
        for job, facts in zip(_jobs(checked.benchmark, settings), checked.shards, strict=True)
        if not job.tar.exists() or state_of(job) != facts.state
    ]
    core = checked.root / ROWS / CORE_ROWS
    if (sha256_of(core) if core.is_file() else "") != checked.core.rows_sha256:
        changed.append(core)
    if changed:
        what = f"{len(changed)} shards or tables changed while they were published."
        raise OpenIliasError(what, where=changed[0], fix="Run the same command again, with --overwrite.")


def _check_shard_names(benchmark: Benchmark) -> Iterator[Finding]:
    names = [shard.name for shard in benchmark.distractor_shards if shard.tar is not None]
    loose = sum(len(shard.files) for shard in benchmark.distractor_shards if shard.tar is None)
    if loose:
        what = f"{loose} distractors are files of a folder, and only tars are published."
        yield Finding("error", "distractors-loose", str(benchmark.root), what, "Use: ilias data write --pack N")
    for name in names:
        if not _SHARD_NAME.fullmatch(name) or shard_number(f"{SHARDS}/{name}") is None:
            what = "Shards are called <name>_<number of 4 digits or more>.tar, in plain letters."
            yield Finding("error", "shard-name", name, what, "Rename it, its table and its ids.")
    for one, other in alike(names):
        yield Finding("error", "names-alike", one, f"This name and {other!r} {ALIKE}.", "Rename one of them.")


def _check_licences(checked: Checked, settings: PublishSettings) -> list[Finding]:
    severity: Severity = "warning" if settings.allow_unknown_licence else "error"
    found = []
    fix = "Complete the tables in rows/, give --licence, or --allow-unknown-licence."
    if checked.core.unknown_licences:
        what = f"The licence of {checked.core.unknown_licences} images of the objects is not known."
        found.append(Finding(severity, "licence-unknown", str(checked.benchmark.core), what, fix))
    fix = "Complete the table in rows/, or --allow-unknown-licence."
    for shard in checked.shards:
        if count := unknown_licences(shard):
            without = f" ({shard.lacking} have no row)" if shard.lacking else ""
            what = f"The licence of {count} of {shard.images} images of this shard is not known{without}."
            found.append(Finding(severity, "licence-unknown", shard.name, what, fix))
    return found


def lines_of(path: Path) -> Iterator[str]:
    """Yield the ids of a list, one by one.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    with open_regular(path) as file:
        for line in file:
            if item := line.decode("utf-8").strip():
                yield item


def _check_minis(benchmark: Benchmark) -> tuple[tuple[MiniList, ...], list[Finding]]:
    """Count the lists of some of the distractors, and look for their ids among all."""
    minis: list[MiniList] = []
    findings: list[Finding] = []
    for path in sorted((benchmark.root / LISTS).glob("mini*_ids.txt")):
        try:
            count = sum(1 for _ in lines_of(path))
            minis.append(MiniList(path, count, fingerprint_lines(lines_of(path))))
            if path.name != MINI:  # verification looks at that one
                findings += _check_mini(benchmark, path)
        except (OSError, ValueError) as error:
            findings.append(Finding("error", "list-unreadable", str(path), f"This list cannot be read: {error}."))
    return tuple(minis), findings


def _check_mini(benchmark: Benchmark, path: Path) -> Iterator[Finding]:
    encoded = (key.encode() for key in lines_of(path))
    good = [key for key in encoded if len(key) <= _LONGEST_KEY]
    keys, counts = np.unique(np.array(good, np.bytes_), return_counts=True)
    wrong = sum(1 for _ in lines_of(path)) - len(good) + int((counts > 1).sum())
    if wrong:
        yield Finding("error", "id-duplicate", str(path), f"{wrong} ids of this list stand twice or are too long.")
    found = np.zeros(len(keys), bool)
    for shard in benchmark.distractor_shards if len(keys) else ():
        if shard.tar is None:
            continue
        try:
            here = scan_once(shard.tar, benchmark.root / STATE / "tar_index").index.keys.to_pylist()
        except OpenIliasError:
            continue  # named already
        names = np.array([key.encode() for key in here], np.bytes_)
        at = np.minimum(np.searchsorted(keys, names), len(keys) - 1)
        found[at[keys[at] == names]] = True
    missing = [key.decode(errors="backslashreplace") for key in keys[~found]]
    if missing:
        what = f"{len(missing)} of {len(keys)} keys are in no shard: {first_few(missing)}."
        yield Finding("error", "mini-missing", str(path), what, "Make the list again: ilias build mini")
