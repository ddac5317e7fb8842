"""Everything that is looked at before anything is published; all that is wrong is found, not just the first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openilias.build.publish.core_files import CoreFacts, check_core_files, core_lost
from openilias.build.publish.decisions import BUILD, Decisions, find_decisions
from openilias.build.publish.settings import CheckSettings, PublishSettings
from openilias.build.publish.shards import ShardFacts, ShardJob, check_shard, shard_lost, unknown_licences
from openilias.build.stored import ROWS
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import ordered_map
from openilias.core.files import read_bytes
from openilias.core.findings import Finding, Severity
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
class Checked:
    """A set, and what was found of it.

    Attributes:
        benchmark: the set.
        decisions: what people decided.
        core: the objects.
        shards: of distractors, by name.
        minis: lists of distractors beside the official ones -> their keys, in order.
        findings: all that is wrong; nothing is published while an error is among them.
    """

    benchmark: Benchmark
    decisions: Decisions
    core: CoreFacts
    shards: tuple[ShardFacts, ...]
    minis: dict[str, tuple[str, ...]]
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
    shards = _check_shards(benchmark, settings, workers)
    findings += [finding for shard in shards for finding in shard.findings]
    minis, of_minis = _check_minis(benchmark)
    checked = Checked(benchmark, decisions, core, shards, minis, (*findings, *of_minis))
    return _with(checked, _check_licences(checked, settings))


def _with(checked: Checked, findings: list[Finding]) -> Checked:
    return Checked(
        checked.benchmark,
        checked.decisions,
        checked.core,
        checked.shards,
        checked.minis,
        tuple(dict.fromkeys((*checked.findings, *findings))),
    )


def verified(checked: Checked, settings: CheckSettings, *, workers: int) -> Checked:
    """Add what ``ilias data verify`` finds, and duplicates between all images."""
    kept = checked.root / STATE / "verify"
    outcome = verify(checked.root, kept, depth=settings.depth, workers=workers)
    if outcome is None:
        raise AssertionError("all of it was asked for")
    return _with(checked, [one for one in outcome.findings if one.severity != "note"])


def _check_shards(benchmark: Benchmark, settings: PublishSettings, workers: int) -> tuple[ShardFacts, ...]:
    jobs = [
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
    found = []
    with ordered_map(workers, lost=shard_lost, ahead=1) as run, progress("check", total=None, unit="images") as step:
        for facts in run(check_shard, jobs):
            found.append(facts)
            step(facts.images)
    return tuple(found)


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


def _check_minis(benchmark: Benchmark) -> tuple[dict[str, tuple[str, ...]], list[Finding]]:
    """Read the lists of some of the distractors, and look for their ids among all."""
    minis: dict[str, tuple[str, ...]] = {}
    findings: list[Finding] = []
    for path in sorted((benchmark.root / LISTS).glob("mini*_ids.txt")):
        try:
            lines = [line.strip() for line in read_bytes(path).decode("utf-8").split("\n")]
        except (OSError, ValueError) as error:
            findings.append(Finding("error", "list-unreadable", str(path), f"This list cannot be read: {error}."))
            continue
        minis[path.name] = tuple(line for line in lines if line)
    for name, keys in minis.items():
        if name != MINI:  # verification looks at that one
            findings += _check_mini(benchmark, benchmark.root / LISTS / name, keys)
    return minis, findings


def _check_mini(benchmark: Benchmark, path: Path, listed: tuple[str, ...]) -> Iterator[Finding]:
    good = [key.encode() for key in listed if len(key.encode()) <= _LONGEST_KEY]
    keys, counts = np.unique(np.array(good, np.bytes_), return_counts=True)
    if len(good) < len(listed) or (counts > 1).any():
        what = f"{len(listed) - len(good) + int((counts > 1).sum())} ids of this list stand twice or are too long."
        yield Finding("error", "id-duplicate", str(path), what)
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
