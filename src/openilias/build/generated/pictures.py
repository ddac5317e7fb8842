"""The single pictures of a generated benchmark: pure functions of the settings and a number."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field, model_validator

from openilias.build.generated.camera import camera_exif
from openilias.build.generated.designs import Design, make_design, make_variant
from openilias.build.generated.knobs import Knobs, Shot, Streams, draw_shot
from openilias.build.generated.scenes import Taken, take_portrait, take_scene
from openilias.build.generated.things import Thing, make_solid, make_thing
from openilias.build.generated.views import View, query_view
from openilias.build.generated.words import KINDS
from openilias.images.boxes import Box, coverage

# The second number of every seed: what the random numbers are for. Two uses never share a stream.
_OBJECT, _QUERY, _POSITIVE, _COUNT, _STRANGER, _DISTRACTOR, _PROP, _VARIANT, _PUPIL, _LESSON = range(1, 11)
_PROPS = 256  # things that fill the scenes; there are only so many, so that they are painted once
_PER_STRANGER = 3  # distractors in a row that show the same thing
_SMALL = 160  # pixels of the pictures in which a variant is compared with its object
_TOLD_APART = (24, 0.001)  # levels by which a pixel differs, and the share of such pixels that makes another thing
_ATTEMPTS = 50  # at a variant that differs visibly
_PLAIN = Knobs()  # distractors are taken as careless photographs are, whatever the knobs of the positives


class SynthSettings(BaseModel, frozen=True, extra="forbid"):
    """What to generate. The same settings give the same bytes.

    Attributes:
        objects: how many.
        distractors: how many.
        seed: everything follows from it.
        positives: least and most of an object.
        size: larger side of the pictures, in pixels.
        shard: distractors of one tar.
        train: instances of the training split, others than the objects and what the distractors show.
        train_images: least and most of a training instance.
        knobs: how hard the positives and the hard negatives are.
    """

    objects: Annotated[int, Field(ge=1, le=999)] = 50
    distractors: Annotated[int, Field(ge=0, le=10_000_000)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0
    positives: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = (3, 6)
    size: Annotated[int, Field(ge=64, le=4096)] = 500
    shard: Annotated[int, Field(ge=1)] = 500
    train: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    train_images: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = (3, 6)
    knobs: Knobs = Knobs()

    @model_validator(mode="after")
    def _in_order(self) -> SynthSettings:
        for name, (least, most) in (("positives", self.positives), ("train_images", self.train_images)):
            if least > most:
                raise ValueError(f"{name}: the least ({least}) exceeds the most ({most})")
        return self


@dataclass(frozen=True)
class Positive:
    """One positive: its JPEG, its box and share of the picture, what was asked of it, and what was measured."""

    jpeg: bytes
    box: Box
    coverage: float
    shot: Shot
    viewpoint: float
    occlusion: float
    crop: float
    manner: str


@dataclass(frozen=True)
class Object:
    """One object: its design, its query with box, its positives."""

    design: Design
    query: bytes
    query_box: Box
    positives: tuple[Positive, ...]


@dataclass(frozen=True)
class Distractor:
    """One distractor: its JPEG and, if it is a hard negative, of which object, how close, and where it differs."""

    jpeg: bytes
    object: int | None = None
    closeness: float | None = None
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lesson:
    """One training instance: its design and its JPEGs."""

    design: Design
    jpegs: tuple[bytes, ...]


def _jpeg(streams: Streams, taken: Taken) -> bytes:
    buffer = io.BytesIO()
    quality = int(streams.of("jpeg").integers(82, 95))
    exif = camera_exif(streams)
    Image.fromarray(taken.image).save(buffer, "JPEG", quality=quality, subsampling=0, exif=exif)
    return buffer.getvalue()


def _picture_size(streams: Streams, larger: int) -> tuple[int, int]:
    """Return height and width of a landscape or portrait picture whose larger side is ``larger``."""
    rng = streams.of("frame")
    smaller = round(larger * float(rng.choice([3 / 4, 3 / 4, 2 / 3])))
    return (smaller, larger) if rng.random() < 0.55 else (larger, smaller)


@lru_cache(maxsize=_PROPS)
def _prop(seed: int, size: int, number: int) -> Thing:
    key = (seed, _PROP, number)
    if number % 5 < 2:
        return make_solid(np.random.default_rng(key))
    return make_thing(make_design(key, KINDS[number % len(KINDS)]), max(24, int(size * 0.22)))


def _props(streams: Streams, settings: SynthSettings, count: int) -> list[Thing]:
    # The first of a shuffle: more of them are these and others.
    chosen = streams.of("props").permutation(_PROPS)[:count]
    return [_prop(settings.seed, settings.size, int(number)) for number in chosen]


def design_of_object(settings: SynthSettings, number: int) -> Design:
    """Return the design of an object; the kinds take turns."""
    return make_design((settings.seed, _OBJECT, number), KINDS[number % len(KINDS)])


def _query_streams(settings: SynthSettings, number: int) -> Streams:
    return Streams(settings.seed, _QUERY, number)


def _scene(settings: SynthSettings, streams: Streams, thing: Thing | None, view: View, shot: Shot) -> Taken:
    size = _picture_size(streams, settings.size)
    return take_scene(streams, size, thing, view, shot, _props(streams, settings, shot.clutter))


def make_object(settings: SynthSettings, number: int) -> Object:
    """Make the pictures of an object."""
    design = design_of_object(settings, number)
    thing = make_thing(design, int(settings.size * 0.9))
    streams = _query_streams(settings, number)
    view = query_view(streams.of("viewpoint"), thing)
    query = take_portrait(streams, _picture_size(streams, settings.size), thing, view)
    if query.box is None:
        raise AssertionError("a portrait shows its thing")
    least, most = settings.positives
    count = int(np.random.default_rng([settings.seed, _COUNT, number]).integers(least, most + 1))
    positives = tuple(_make_positive(settings, thing, view, number, index) for index in range(count))
    return Object(design, _jpeg(streams, query), query.box, positives)


def _make_positive(settings: SynthSettings, thing: Thing, view: View, number: int, index: int) -> Positive:
    streams = Streams(settings.seed, _POSITIVE, number, index)
    # Together these turns meet all 16 pairs of groups within four objects.
    shot = draw_shot(settings.knobs, streams, ((number + index) % 4, (2 * number + index) % 4))
    taken = _scene(settings, streams, thing, view, shot)
    if taken.box is None:
        raise AssertionError("a positive shows its object")
    height, width = taken.image.shape[:2]
    return Positive(
        jpeg=_jpeg(streams, taken),
        box=taken.box,
        coverage=coverage((taken.box,), width=width, height=height),
        shot=shot,
        viewpoint=taken.viewpoint,
        occlusion=taken.occlusion,
        crop=taken.crop,
        manner=taken.manner,
    )


def _turns(streams: Streams) -> tuple[int, int]:
    first, second = streams.of("turns").integers(4, size=2)
    return int(first), int(second)


@lru_cache(maxsize=4)
def _stranger(seed: int, size: int, purpose: int, number: int) -> Thing:
    """Paint the thing that some distractors, or the pictures of a lesson, show; never one of the objects."""
    return make_thing(make_design((seed, purpose, number), KINDS[number * 5 % len(KINDS)]), int(size * 0.8))


def _other(settings: SynthSettings, number: int, index: int, closeness: float) -> tuple[Design, tuple[str, ...]]:
    """Return a variant of an object that one can tell from it: some details lie hidden in some designs."""
    look = _small_portrait(settings.seed, number, design_of_object(settings, number))
    for attempt in range(_ATTEMPTS):
        key = (settings.seed, _VARIANT, index, attempt)
        design, differs = make_variant(design_of_object(settings, number), key, closeness)
        other = _small_portrait(settings.seed, number, design)
        if (np.abs(look - other).max(2) > _TOLD_APART[0]).mean() >= _TOLD_APART[1]:
            return design, differs
    raise AssertionError(f"no variant of object {number} differs visibly")


@lru_cache(maxsize=64)
def _small_portrait(seed: int, number: int, design: Design) -> NDArray[np.int16]:
    """Take a design as the query of an object is taken, small, without light and noise of its own."""
    streams = Streams(seed, _QUERY, number)
    thing = make_thing(design, _SMALL)
    image = take_portrait(streams, (_SMALL, _SMALL), thing, query_view(streams.of("viewpoint"), thing)).image
    return image.astype(np.int16)


def _make_distractor(settings: SynthSettings, index: int) -> Distractor:
    streams = Streams(settings.seed, _DISTRACTOR, index)
    shot = draw_shot(_PLAIN, streams, _turns(streams))
    manner, number = streams.of("turns").random(3)[2], index // _PER_STRANGER
    rng = streams.of("variant")
    chance, chosen, place = rng.random(3)
    whose: tuple[int, float, tuple[str, ...]] | None = None
    if chance < settings.knobs.hard:
        object_, (low, high) = int(chosen * settings.objects), settings.knobs.closeness
        closeness = float(low + (high - low) * place)
        design, differs = _other(settings, object_, index, closeness)
        hero: Thing | None = make_thing(design, int(settings.size * 0.8))
        whose, view_streams = (object_, closeness, differs), _query_streams(settings, object_)
        manner *= 0.75  # it shows its thing
    else:
        hero = _stranger(settings.seed, settings.size, _STRANGER, number) if manner < 0.75 else None
        view_streams = Streams(settings.seed, _STRANGER, number)
    view = query_view(view_streams.of("viewpoint"), hero) if hero is not None else (0.0, 0.0)
    if hero is not None and manner < 0.2:
        taken = take_portrait(streams, _picture_size(streams, settings.size), hero, view)
    else:
        taken = _scene(settings, streams, hero, view, shot)
    return Distractor(_jpeg(streams, taken), *(whose or ()))


def make_distractors(settings: SynthSettings, indices: Sequence[int]) -> list[Distractor]:
    """Make distractors, a few in a row: some show the same thing."""
    return [_make_distractor(settings, index) for index in indices]


def design_of_lesson(settings: SynthSettings, number: int) -> Design:
    """Return the design of a training instance; the kinds take turns."""
    return make_design((settings.seed, _PUPIL, number), KINDS[number % len(KINDS)])


def make_lesson(settings: SynthSettings, number: int) -> Lesson:
    """Make the pictures of a training instance: one on plain ground, the others in scenes."""
    design = design_of_lesson(settings, number)
    thing = make_thing(design, int(settings.size * 0.8))
    view = query_view(Streams(settings.seed, _PUPIL, number).of("viewpoint"), thing)
    least, most = settings.train_images
    count = int(np.random.default_rng([settings.seed, _COUNT, _PUPIL, number]).integers(least, most + 1))
    jpegs = []
    for index in range(count):
        streams = Streams(settings.seed, _LESSON, number, index)
        if index == 0:
            taken = take_portrait(streams, _picture_size(streams, settings.size), thing, view)
        else:
            taken = _scene(settings, streams, thing, view, draw_shot(settings.knobs, streams, _turns(streams)))
        jpegs.append(_jpeg(streams, taken))
    return Lesson(design, tuple(jpegs))
