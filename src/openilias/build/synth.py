"""A generated ILIAS: made-up things photographed in made-up scenes, in the layout of the official release."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import cv2
import numpy as np
from PIL import Image
from pydantic import BaseModel, Field, model_validator

from openilias.build.scenes import take_portrait, take_scene
from openilias.build.textures import Pixels
from openilias.build.things import Thing, make_solid, make_thing
from openilias.build.words import KINDS, Design, describe, make_design, object_names
from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_folder, sha256_of, write_bytes, write_json
from openilias.core.manifests import claim, write_manifest
from openilias.core.progress import Step, progress
from openilias.images.boxes import Box, coverage
from openilias.images.tars import write_tar

KIND = "synthetic benchmark"
MANIFEST = "synth.json"
ALGORITHM_VERSION = 1  # changes when any picture, id or text of the same settings changes

# The official groups of area coverage and clutter, a little inside; positives take turns in them.
_SHARES = ((0.024, 0.066), (0.08, 0.133), (0.17, 0.268), (0.34, 0.82))
_CLUTTER = ((0, 18), (18, 33), (33, 53), (53, 73))

# The second number of every seed: what the random numbers are for. Two uses never share a stream.
_NAMES, _OBJECT, _QUERY, _POSITIVE, _COUNT, _STRANGER, _DISTRACTOR, _PROP = range(8)
_PROPS = 256  # things that fill the scenes; there are only so many, so that they are painted once
_PER_STRANGER = 3  # distractors in a row that show the same thing
_PER_JOB = 12  # distractors of one job: a multiple of the above

T = TypeVar("T")
J = TypeVar("J")
Map = Callable[[Callable[[J], T], Iterable[J]], Iterator[T]]


class SynthSettings(BaseModel, frozen=True, extra="forbid"):
    """What to generate. The same settings give the same bytes."""

    objects: Annotated[int, Field(ge=1, le=999)] = 50
    distractors: Annotated[int, Field(ge=0, le=10_000_000)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0
    positives: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = (3, 6)
    size: Annotated[int, Field(ge=64, le=4096)] = 500
    shard: Annotated[int, Field(ge=1)] = 500

    @model_validator(mode="after")
    def _positives_in_order(self) -> SynthSettings:
        least, most = self.positives
        if least > most:
            raise ValueError(f"positives: the least ({least}) exceeds the most ({most})")
        return self


@dataclass(frozen=True)
class _Positive:
    jpeg: bytes
    box: Box
    coverage: float
    clutter: int


@dataclass(frozen=True)
class _Object:
    design: Design
    query: bytes
    query_box: Box
    positives: tuple[_Positive, ...]


def _rng(settings: SynthSettings, *key: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, *key])


def _jpeg(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _picture_size(rng: np.random.Generator, larger: int) -> tuple[int, int]:
    """Return height and width of a landscape or portrait picture whose larger side is ``larger``."""
    smaller = round(larger * float(rng.choice([3 / 4, 3 / 4, 2 / 3])))
    return (smaller, larger) if rng.random() < 0.55 else (larger, smaller)


@lru_cache(maxsize=_PROPS)
def _prop(seed: int, size: int, number: int) -> Thing:
    pixels = max(24, int(size * 0.22))
    key = (seed, _PROP, number)
    if number % 5 < 3:
        return make_solid(np.random.default_rng(key), pixels)
    return make_thing(make_design(key, KINDS[number % len(KINDS)]), pixels)


def _props(rng: np.random.Generator, settings: SynthSettings, count: int) -> list[Thing]:
    return [_prop(settings.seed, settings.size, int(n)) for n in rng.choice(_PROPS, size=count, replace=False)]


@lru_cache(maxsize=4)
def _stranger(settings: SynthSettings, number: int) -> Thing:
    """Paint the thing that some distractors show; never one of the objects, whose seeds differ."""
    design = make_design((settings.seed, _STRANGER, number), KINDS[number * 5 % len(KINDS)])
    return make_thing(design, int(settings.size * 0.8))


def _draw_share(rng: np.random.Generator, group: int) -> float:
    low, high = _SHARES[group]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _make_object(settings: SynthSettings, number: int) -> _Object:
    # Steps of 5 through the 14 kinds, so that a few objects are already of several families.
    design = make_design((settings.seed, _OBJECT, number), KINDS[number * 5 % len(KINDS)])
    thing = make_thing(design, int(settings.size * 0.9))
    rng = _rng(settings, _QUERY, number)
    query, query_box = take_portrait(rng, _picture_size(rng, settings.size), thing)
    least, most = settings.positives
    count = int(_rng(settings, _COUNT, number).integers(least, most + 1))
    positives = tuple(_make_positive(settings, thing, number, index) for index in range(count))
    return _Object(design, _jpeg(query), query_box, positives)


def _make_positive(settings: SynthSettings, thing: Thing, number: int, index: int) -> _Positive:
    rng = _rng(settings, _POSITIVE, number, index)
    size = _picture_size(rng, settings.size)
    # Together these turns meet all 16 pairs of groups within four objects.
    share = _draw_share(rng, (number + index) % 4)
    clutter = int(rng.integers(*_CLUTTER[(2 * number + index) % 4]))
    image, box = take_scene(rng, size, thing, share, _props(rng, settings, clutter))
    if box is None:
        raise AssertionError("a positive shows its object")
    return _Positive(_jpeg(image), box, coverage((box,), width=size[1], height=size[0]), clutter)


def _make_distractor(settings: SynthSettings, index: int) -> bytes:
    rng = _rng(settings, _DISTRACTOR, index)
    size = _picture_size(rng, settings.size)
    manner = rng.random()
    if manner < 0.2:
        return _jpeg(take_portrait(rng, size, _stranger(settings, index // _PER_STRANGER))[0])
    hero = _stranger(settings, index // _PER_STRANGER) if manner < 0.75 else None
    share = _draw_share(rng, int(rng.integers(4)))
    clutter = int(rng.integers(*_CLUTTER[int(rng.integers(4))]))
    return _jpeg(take_scene(rng, size, hero, share, _props(rng, settings, clutter))[0])


def _make_distractors(settings: SynthSettings, indices: range) -> list[bytes]:
    return [_make_distractor(settings, index) for index in indices]


def _one_thread() -> None:
    cv2.setNumThreads(1)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give an ordered ``map``: in this process for one worker, else over spawned processes."""
    if workers == 1:
        before = cv2.getNumThreads()
        _one_thread()
        try:
            yield map
        finally:
            cv2.setNumThreads(before)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
    try:
        yield pool.map
    except BrokenProcessPool:
        raise OpenIliasError(
            "A worker process ended while generating.",
            fix="Give fewer workers, or one; a script must have an 'if __name__ == \"__main__\":' around it.",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _box_line(box: Box) -> bytes:
    return f"{box.x} {box.y} {box.width} {box.height}\n".encode()


def _write_object(core: Path, name: str, made: _Object) -> None:
    number = name[-3:]
    query, positives = core / name / "query", core / name / "pos"
    for folder in (query, positives):
        folder.mkdir(parents=True)
    (query / f"Q{number}_00.jpg").write_bytes(made.query)
    (query / f"Q{number}_00_bbox.txt").write_bytes(_box_line(made.query_box))
    (query / f"T{number}.txt").write_text(describe(made.design) + "\n", encoding="ascii")
    for index, positive in enumerate(made.positives):
        stem = f"P{number}_{index:02d}"
        (positives / f"{stem}.jpg").write_bytes(positive.jpeg)
        (positives / f"{stem}_bbox.txt").write_bytes(_box_line(positive.box))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def _write_core(folder: Path, settings: SynthSettings, run: Callable[..., Iterator[Any]], step: Step) -> None:
    """Write the objects with their query, text and positive lists, and the taxonomy."""
    names = object_names(_rng(settings, _NAMES), settings.objects)
    queries, texts, positives = [], [], []
    taxonomy: dict[str, dict[str, dict[str, list[str]]]] = {}
    jobs: Iterator[_Object] = run(partial(_make_object, settings), range(settings.objects))
    for name, made in zip(names, jobs, strict=True):
        _write_object(folder / "ilias_core", name, made)
        queries.append(f"{name}/query/Q{name[-3:]}_00.jpg,{name}")
        texts.append(f"{name}/query/T{name[-3:]}.txt")
        for index, one in enumerate(made.positives):
            positives.append(f"{name}/pos/P{name[-3:]}_{index:02d}.jpg,{one.coverage!r},{one.clutter}")
        kind = made.design.kind
        taxonomy.setdefault(kind.coarse, {}).setdefault(kind.mid, {}).setdefault(kind.fine, []).append(name)
        step(1 + len(made.positives))
    ids = folder / "image_ids"
    ids.mkdir()
    # Sorted by id; within a line the id ends at the comma, which sorts before every character of an id.
    _write_lines(ids / "image_query_ids.txt", sorted(queries))
    _write_lines(ids / "text_query_ids.txt", sorted(texts))
    _write_lines(ids / "positive_ids.txt", sorted(positives))
    write_json(folder / "taxonomy.json", taxonomy)


def _write_distractors(folder: Path, settings: SynthSettings, run: Callable[..., Iterator[Any]], step: Step) -> None:
    """Write the shards, the list of their images and their checksums."""
    shards = folder / "yfcc100m"
    shards.mkdir()
    total = settings.distractors
    jobs = [range(start, min(start + _PER_JOB, total)) for start in range(0, total, _PER_JOB)]
    images = (jpeg for made in run(partial(_make_distractors, settings), jobs) for jpeg in made)

    def members(indices: range) -> Iterator[tuple[str, bytes]]:
        for index, jpeg in zip(indices, islice(images, len(indices)), strict=True):
            yield f"d{index:07d}.jpg", jpeg
            step()

    ids, checksums = [], []
    for shard, start in enumerate(range(0, total, settings.shard)):
        indices = range(start, min(start + settings.shard, total))
        path = shards / f"yfcc100m_{shard:04d}.tar"
        write_tar(path, members(indices))
        ids += [f"{path.name}/d{index:07d}\n" for index in indices]
        checksums.append(f"{sha256_of(path)}  {shards.name}/{path.name}")
    # No time in the gzip header: the same lines are the same bytes.
    write_bytes(folder / "image_ids" / "distractor_ids.txt.gz", gzip.compress("".join(ids).encode(), mtime=0))
    _write_lines(folder / "checksums.txt", checksums)


def build_synth(out: Path, settings: SynthSettings, *, workers: int | None = None) -> None:
    """Generate a small benchmark in the official layout.

    The result depends on ``settings`` alone, not on ``workers``. An output of the same settings is kept.
    With several workers processes are spawned: a script must call this under ``if __name__ == "__main__":``.

    Args:
        out: the folder to make.
        settings: what to generate.
        workers: processes, at least 1; None for one per CPU.

    Raises:
        OpenIliasError: ``out`` holds something else, or ``workers`` is below 1.
    """
    if workers is not None and workers < 1:
        raise OpenIliasError(f"There must be at least one worker, not {workers}.", fix="Give --workers 1 or more.")
    made_from = {**settings.model_dump(mode="json"), "algorithm_version": ALGORITHM_VERSION}
    if claim(out, MANIFEST, kind=KIND, made_from=made_from, overwrite=False) == "same":
        return
    with (
        atomic_folder(out) as folder,
        _mapper(workers or os.cpu_count() or 1) as run,
        progress("Generating pictures", total=None, unit="pictures") as step,
    ):
        _write_core(folder, settings, run, step)
        _write_distractors(folder, settings, run, step)
        write_manifest(folder / MANIFEST, kind=KIND, made_from=made_from)
