"""Measuring clutter and coverage of all positives of a set, and writing both to ``positive_ids.txt``."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from openilias.build.clutter.counts import count_outside, inside_boxes
from openilias.build.clutter.draw import write_drawing
from openilias.build.clutter.segmenters import SegmenterSpec, load_segmenter
from openilias.build.kept import Kept, kept_results
from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import ordered_map, usable_cores
from openilias.core.files import owned, write_bytes
from openilias.core.fingerprints import fingerprint
from openilias.core.manifests import write_manifest
from openilias.core.progress import progress
from openilias.core.shards import Share
from openilias.core.threads import one_thread_per_worker
from openilias.data import read_ilias
from openilias.data.benchmark import Benchmark, Item
from openilias.data.ilias import LISTS, POSITIVES
from openilias.images.boxes import Box, coverage
from openilias.images.decode import decode

ALGORITHM_VERSION = 1
KIND = "clutter"
WithoutBoxes = Literal["refuse", "whole", "skip"]


_ALL = Share()


class ClutterSettings(BaseModel, frozen=True, extra="forbid"):
    """How clutter is measured.

    Attributes:
        segmenter: what makes the segments.
        most_inside: a segment counts if less than this share of its area lies in the union of the boxes. The paper
            counts "segments outside the query object's bounding boxes" and does not say what of those that are cut.
        without_boxes: what becomes of positives without boxes: refused, taken for an object that fills the image
            (coverage 1, no segment outside), or left without numbers.
    """

    segmenter: SegmenterSpec = SegmenterSpec()
    most_inside: Annotated[float, Field(gt=0, le=1)] = 0.5
    without_boxes: WithoutBoxes = "refuse"


@dataclass(frozen=True)
class ClutterResult:
    """What was measured.

    Attributes:
        values: positive -> share of the image in its boxes, segments outside; None where not known.
        measured: positives whose segments were counted by this run; the others were known.
        without_boxes: positives without boxes.
        path: of the list, None if this run was a part of the work.
    """

    values: dict[str, tuple[float | None, int | None]]
    measured: int
    without_boxes: tuple[str, ...]
    path: Path | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        counts = [count for _, count in self.values.values() if count is not None]
        shares = [share for share, _ in self.values.values() if share is not None]
        return {
            "positives": len(self.values),
            "measured": self.measured,
            "without_boxes": list(self.without_boxes),
            "clutter_quartiles": _quartiles(counts),
            "coverage_quartiles": _quartiles(shares),
            "list": None if self.path is None else str(self.path),
        }


def _quartiles(values: list[Any]) -> list[float]:
    """Return the least, the quartiles, the most."""
    if len(values) < 2:
        return [float(value) for value in values]
    inner = statistics.quantiles(values, n=4, method="inclusive")
    return [float(min(values)), *inner, float(max(values))]


@dataclass(frozen=True)
class _Job:
    item: str
    path: Path
    boxes: tuple[Box, ...]
    settings: ClutterSettings
    drawing: Path | None


def measure_clutter(
    root: Path,
    settings: ClutterSettings | None = None,
    *,
    workers: int | None = None,
    shard: Share = _ALL,
    draw: Path | None = None,
    most_drawn: int = 50,
) -> ClutterResult:
    """Count the segments outside the boxes of every positive; write ``image_ids/positive_ids.txt`` and a manifest.

    What was counted is kept by image, boxes and settings: killed, it goes on; only what changed is counted again.

    Args:
        root: the set.
        settings: how.
        workers: processes; networks use one, and its threads.
        shard: count only a share of the positives, and write no list; a run of everything, after all shares, writes it.
        draw: a folder for pictures of the segments.
        most_drawn: that many positives are drawn, evenly over the list.

    Raises:
        OpenIliasError: no set, positives without boxes that are not allowed, an image that cannot be read.
    """
    settings = settings or ClutterSettings()
    benchmark = read_ilias(root)
    boxes = {item: benchmark.boxes(item) for item in benchmark.positives}
    bare = tuple(item for item, found in boxes.items() if not found)
    if bare and settings.without_boxes == "refuse":
        raise OpenIliasError(
            f"{len(bare)} positives have no boxes: {first_few(list(bare), most=10)}.",
            where=benchmark.core,
            fix="Draw them, or give --without-boxes whole (the object fills the image) or skip (no numbers).",
        )
    record = load_segmenter(settings.segmenter).record
    made_from = {"algorithm_version": ALGORITHM_VERSION, "segmenter": record, "most_inside": settings.most_inside}
    chosen = shard.take([item for item in boxes if boxes[item]])
    drawn = set(chosen[:: max(1, -(-len(chosen) // max(1, most_drawn)))]) if draw is not None else set()
    jobs = [
        _Job(item, benchmark.path_of(item), boxes[item], settings, _drawing(draw, item) if item in drawn else None)
        for item in chosen
    ]
    workers = 1 if settings.segmenter.is_network else workers or usable_cores()
    folder = Path(root) / "build" / "clutter"
    part = "" if shard.everything else f".{shard.number}-of-{shard.of}"
    with kept_results(folder / "kept", fingerprint(made_from), part=part) as kept:
        found, measured = _count(jobs, kept, workers)
    values = _values(boxes, found, settings.without_boxes)
    if not shard.everything:
        return ClutterResult(values, measured, bare, None)
    path = _write(benchmark, folder, values, settings, made_from, bare)
    return ClutterResult(values, measured, bare, path)


def _drawing(folder: Path | None, item: str) -> Path | None:
    return None if folder is None else folder / f"{item.replace('/', '--').removesuffix('.jpg')}.png"


def _count(jobs: list[_Job], kept: Kept, workers: int) -> tuple[dict[str, tuple[float, int]], int]:
    """Return coverage and clutter by positive, and how many were counted now."""
    keys: dict[str, str] = {}
    measured = 0

    def left() -> Iterator[_Job]:
        for job in jobs:
            digest = hashlib.sha256(Item(job.item, job.path).read())
            digest.update(repr([tuple(box) for box in job.boxes]).encode())
            key = keys[job.item] = digest.hexdigest()
            if key in kept and job.drawing is None:
                step()
            else:
                yield job

    with progress("clutter", total=len(jobs), unit="images") as step, ordered_map(workers) as run:
        for item, share, count in run(_measure, left()):
            if keys[item] not in kept:
                kept.put(keys[item], [share, count])
                measured += 1
            step()
    found = {}
    for item, key in keys.items():
        share, count = kept[key]
        found[item] = (float(share), int(count))
    return found, measured


def _measure(job: _Job) -> tuple[str, float, int]:
    picture = np.array(decode(Item(job.item, job.path).read(), where=job.item))
    height, width = picture.shape[:2]
    with one_thread_per_worker():
        segments = load_segmenter(job.settings.segmenter).segments(picture)
    shape = segments.shape[-2:]
    inside = inside_boxes(job.boxes, (width, height), (shape[0], shape[1]))
    if job.drawing is not None:
        write_drawing(job.drawing, picture, job.boxes, segments, inside, most_inside=job.settings.most_inside)
    count = count_outside(segments, inside, most_inside=job.settings.most_inside)
    return job.item, coverage(job.boxes, width=width, height=height), count


def _values(
    boxes: dict[str, tuple[Box, ...]], found: dict[str, tuple[float, int]], without_boxes: WithoutBoxes
) -> dict[str, tuple[float | None, int | None]]:
    values: dict[str, tuple[float | None, int | None]] = {}
    for item, own in boxes.items():
        if item in found:
            values[item] = found[item]
        elif not own:
            values[item] = (1.0, 0) if without_boxes == "whole" else (None, None)
    return values


def _write(
    benchmark: Benchmark,
    folder: Path,
    values: dict[str, tuple[float | None, int | None]],
    settings: ClutterSettings,
    made_from: dict[str, Any],
    bare: tuple[str, ...],
) -> Path:
    path = benchmark.root / LISTS / POSITIVES
    lines = (
        f"{item},{'' if share is None else repr(share)},{'' if count is None else count}\n"
        for item, (share, count) in values.items()
    )
    with owned(folder):
        write_bytes(path, "".join(lines).encode())
        write_manifest(
            folder / "manifest.json",
            kind=KIND,
            made_from=made_from | {"benchmark": benchmark.fingerprint, "without_boxes": settings.without_boxes},
            versions=_versions(),
            positives=len(values),
            bare=list(bare),
        )
    return path


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("scikit-image", "transformers")}
