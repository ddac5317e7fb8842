"""What a set is, in numbers: the material of its datasheet, its list of licences and its pages."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.build.publish.checks import Checked
from openilias.build.publish.decisions import BUILD, Decisions
from openilias.build.publish.rows import UNKNOWN
from openilias.build.publish.settings import PublishSettings
from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json
from openilias.data.taxonomy import UNASSIGNED

_SETTINGS = "settings.json"  # of a step whose settings stand alone
STEPS = ("ingest", "collect", "anonymise", "clutter", "caption", "mini")
_PRIVATE_KEY = re.compile(
    r"(^|_)(paths?|folders?|dirs?|files?|root|where|hosts?|endpoint|urls?|base|address|tokens?|secret|password|keys?|user|"
    r"tables?|collector|agent)(_|$)",
    re.IGNORECASE,
)
_PRIVATE_VALUE = re.compile(r"^\s*([/~\\]|[A-Za-z]:[/\\]|file:|\.{1,2}/)|://")
_MOST_VALUES = 80
_MOST_TEXT = 4000


@dataclass(frozen=True)
class Manifest:
    """What a step says that its output was made from: its name, its kind, and settings by their names."""

    step: str
    kind: str
    settings: tuple[tuple[str, str], ...]
    more: int = 0


@dataclass(frozen=True)
class LicenceCount:
    """A licence: its name, its text, and how many images of the objects and of the distractors have it."""

    name: str
    url: str
    core: int
    distractors: int


@dataclass(frozen=True)
class Facts:
    """Numbers of a set.

    Attributes:
        objects, image_queries, text_queries, positives, distractors, shards: how many.
        core_bytes, distractor_bytes: of the images.
        licences: the most frequent first.
        lacking: images whose row is made of their bytes alone.
        cameras: of the objects' images, the most frequent first; empty where it is not known.
        distractor_cameras: how many different ones, and of how many images one is known.
        distractor_years: year in which they were taken -> distractors; empty where it is not known.
        statuses: status -> rows that were asked for, of distractors and objects.
        coarse: category -> objects.
        categories: (coarse, mid, fine) numbers of categories.
        with_boxes, with_coverage, with_clutter: positives.
        query_boxes: image queries that have boxes.
        minis: list -> ids.
        reencoded: images whose bytes are not those of the original.
        decisions: of people.
        manifests: of the steps.
        left_out: files of the objects that are not published.
    """

    objects: int
    image_queries: int
    text_queries: int
    positives: int
    distractors: int
    shards: int
    core_bytes: int
    distractor_bytes: int
    licences: tuple[LicenceCount, ...]
    lacking: int
    cameras: tuple[tuple[str, int], ...]
    distractor_cameras: tuple[int, int]
    distractor_years: tuple[tuple[str, int], ...]
    statuses: dict[str, int]
    coarse: tuple[tuple[str, int], ...]
    categories: tuple[int, int, int]
    query_boxes: int
    with_boxes: int
    with_coverage: int
    with_clutter: int
    minis: tuple[tuple[str, int], ...]
    reencoded: int
    decisions: Decisions
    manifests: tuple[Manifest, ...]
    left_out: int

    @property
    def unknown_licences(self) -> int:
        """Images whose licence nobody knows."""
        return sum(one.core + one.distractors for one in self.licences if one.name == UNKNOWN)


def facts_of(checked: Checked, settings: PublishSettings) -> Facts:
    """Count what was checked."""
    benchmark = checked.benchmark
    names = benchmark.relevance.keys()
    coarse = Counter(benchmark.taxonomy.coarse(name) or UNASSIGNED for name in names) if names else Counter[str]()
    known = [benchmark.attributes[item] for item in benchmark.positives]
    distractor_cameras = checked.cameras
    return Facts(
        objects=len(names),
        image_queries=len(benchmark.image_queries),
        text_queries=len(benchmark.text_queries),
        positives=len(benchmark.positives),
        distractors=sum(shard.images for shard in checked.shards),
        shards=len(checked.shards),
        core_bytes=checked.core.image_bytes,
        distractor_bytes=sum(shard.image_bytes for shard in checked.shards),
        licences=_licences(checked, settings),
        lacking=checked.core.lacking + sum(shard.lacking for shard in checked.shards),
        cameras=_most_frequent(checked.core.rows.cameras),
        distractor_cameras=(
            len(distractor_cameras.keys() - {""}),
            sum(count for name, count in distractor_cameras.items() if name),
        ),
        distractor_years=tuple(sorted(_summed(shard.years for shard in checked.shards).items())),
        statuses=dict(sorted(_summed([checked.core.rows.statuses, *(one.statuses for one in checked.shards)]).items())),
        coarse=_most_frequent(coarse),
        categories=benchmark.taxonomy.counts(),
        query_boxes=sum(bool(benchmark.boxes(item)) for item in benchmark.image_queries),
        with_boxes=sum(bool(benchmark.boxes(item)) for item in benchmark.positives),
        with_coverage=sum(one.coverage is not None for one in known),
        with_clutter=sum(one.clutter is not None for one in known),
        minis=tuple((one.name, one.count) for one in checked.minis),
        reencoded=checked.core.rows.reencoded + sum(shard.reencoded for shard in checked.shards),
        decisions=checked.decisions,
        manifests=manifests_of(checked.root),
        left_out=checked.core.left_out,
    )


def _summed(counts: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total


def _most_frequent(counts: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _licences(checked: Checked, settings: PublishSettings) -> tuple[LicenceCount, ...]:
    core = Counter(checked.core.rows.licences)
    core[(settings.licence or UNKNOWN, "")] += checked.core.lacking
    distractors: Counter[tuple[str, str]] = Counter()
    for shard in checked.shards:
        distractors.update({(name, url): count for name, url, count in shard.licences})
        distractors[(UNKNOWN, "")] += shard.lacking
    found = [
        LicenceCount(name, url, core[(name, url)], distractors[(name, url)])
        for name, url in core.keys() | distractors.keys()
        if core[(name, url)] or distractors[(name, url)]
    ]
    return tuple(sorted(found, key=lambda one: (-one.core - one.distractors, one.name, one.url)))


def manifests_of(root: Path) -> tuple[Manifest, ...]:
    """Return what the steps say of themselves, without paths, addresses and keys."""
    found = []
    for step, folder in (("", root), *((step, root / BUILD / step) for step in STEPS)):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            try:
                value = read_json(path)
            except OpenIliasError:
                continue  # a file of a step that is no manifest is no concern of ours
            made_from = value.get("made_from") if isinstance(value, dict) else None
            if made_from is None and path.name == _SETTINGS:
                made_from = value
            if not isinstance(made_from, dict):
                continue
            leaves = public_leaves(made_from)
            kind = str(value.get("kind") or path.stem)
            found.append(Manifest(step, kind, tuple(leaves[:_MOST_VALUES]), max(0, len(leaves) - _MOST_VALUES)))
    return tuple(found)


def public_leaves(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return the settings of a manifest as names and texts; those that may name a place or a person are left out."""
    if isinstance(value, dict):
        return [
            leaf
            for key in value
            if not _PRIVATE_KEY.search(str(key))
            for leaf in public_leaves(value[key], f"{name}.{key}" if name else str(key))
        ]
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict | list) for item in items):
        return [leaf for number, item in enumerate(items) for leaf in public_leaves(item, f"{name}[{number}]")]
    words = {True: "yes", False: "no", None: "none"}
    texts = [words[item] if isinstance(item, bool | None) else str(item) for item in items]
    if any(_PRIVATE_VALUE.search(text) for text in texts):
        return []
    text = ", ".join(texts) if len(texts) <= 20 else f"{len(texts)} values"
    return [(name, text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}...")]
