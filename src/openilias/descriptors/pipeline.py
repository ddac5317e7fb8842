"""From images to descriptors: decoded by worker processes, described in batches of one shape, in order again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.executors import Loss, ordered_map
from openilias.core.ids import Partition
from openilias.core.progress import Step
from openilias.core.protocol import Compat
from openilias.data import Item
from openilias.descriptors.store import Skipped, SkipStatus
from openilias.images.boxes import Box
from openilias.images.decode import UnreadableImageError, decode
from openilias.models.backbone import Backbone, Floats

CHUNK = 8
"""Images of one job of a worker process."""
AHEAD = 2
"""Jobs begun per worker process."""
WINDOW = 16
"""Batches' worth of prepared images among which those of one shape are gathered."""
ALONE = 16
"""Fewer images are decoded in this process, where nothing can be stopped: others would take longer to start."""

Array = npt.NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Means:
    """What the work is done with; of all this only ``batch_size`` and ``skip`` can change a descriptor, the first by
    rounding.

    Attributes:
        batch_size: images per forward pass.
        workers: processes that decode; with one, this process decodes.
        timeout: seconds that reading and preparing an image may take; only worker processes can be stopped.
        skip: list images that cannot be decoded, take too long or kill a worker process, instead of stopping.
        guarded: use worker processes even for a few images.
    """

    batch_size: int
    workers: int
    timeout: float
    skip: bool
    guarded: bool = False

    def processes(self, images: int) -> int:
        """Return how many processes are worth starting for so many images."""
        return max(self.workers, 2) if self.guarded else 1 if images < ALONE else self.workers

    def held(self) -> int:
        """Return how many prepared images there are at most at a time."""
        return WINDOW * self.batch_size + (CHUNK * AHEAD * self.workers if self.workers > 1 else 0)


@dataclass(frozen=True)
class Failure:
    """An image that could not be prepared."""

    id: str
    what: str
    fix: str | None
    status: SkipStatus


@dataclass(frozen=True)
class _Job:
    """Some images, for a worker process."""

    items: tuple[Item, ...]
    boxes: tuple[tuple[Box, ...], ...]
    prepare: Callable[[Image.Image, tuple[Box, ...]], Any]
    upright: bool
    compat: Compat


@dataclass
class Described:
    """What came of the items, in their order: the places of those that were described, their (n, D) descriptors."""

    places: list[int]
    descriptors: Floats
    skipped: dict[int, Skipped] = field(default_factory=dict)


def describe_items(
    items: Sequence[Item],
    backbone: Backbone,
    partition: Partition,
    means: Means,
    step: Step,
    *,
    boxes: Callable[[Item], tuple[Box, ...]],
    upright: bool = True,
    dtype: str = "float32",
) -> Described:
    """Describe images of one shard.

    Args:
        items: the images.
        backbone: with what.
        partition: which boxes and views they get.
        means: with what means.
        step: is told of every image.
        boxes: gives the boxes of an item; asked only if the protocol uses them.
        upright: turn them as their EXIF orientation says.
        dtype: of the descriptors that are returned.

    Raises:
        OpenIliasError: an image cannot be read or described and ``means.skip`` is False, or the model fails.
    """
    out: Floats = np.zeros((len(items), backbone.dims), dtype)
    skipped: dict[int, Skipped] = {}
    views = backbone.protocol.views_of(partition)

    def begin(batch: list[Array]) -> Callable[[], Floats]:
        result = backbone.begin(batch, views)
        return lambda: backbone.checked(result(), len(batch))

    work = Work(
        backbone.preparation(partition),
        lambda array: backbone.group_of(array.shape, views),
        begin,
        compat=backbone.protocol.compat,
        shares_cores=backbone.device == "cpu",
    )
    uses_boxes = backbone.protocol.boxes_of(partition) != "none"
    for places, made in in_batches(
        items, work, means, step, skipped, boxes=boxes if uses_boxes else _no_boxes, upright=upright
    ):
        out[places] = made
    places = [place for place in range(len(items)) if place not in skipped]
    return Described(places, out if not skipped else out[places], skipped)


@dataclass(frozen=True)
class Work(Generic[T]):
    """What is done with images: the one half in worker processes, the other in this one.

    Attributes:
        prepare: a picture and its boxes -> what the model takes; sent to worker processes.
        group_of: what is prepared -> what those that go into one batch have in common.
        begin: a batch -> what waits for its result.
        compat: of the decoding.
        shares_cores: what is done in this process takes the cores of the worker processes.
    """

    prepare: Callable[[Image.Image, tuple[Box, ...]], Any]
    group_of: Callable[[Any], Hashable]
    begin: Callable[[list[Any]], Callable[[], T]]
    compat: Compat
    shares_cores: bool


def in_batches(
    items: Sequence[Item],
    work: Work[T],
    means: Means,
    step: Step,
    skipped: dict[int, Skipped],
    *,
    boxes: Callable[[Item], tuple[Box, ...]],
    upright: bool,
) -> Iterator[tuple[list[int], T]]:
    """Yield the places of the items of each batch, and what came of them.

    Args:
        items: the images.
        work: what is done.
        means: with what means.
        step: is told of every image.
        skipped: what was passed over is written here, by its place.
        boxes: gives the boxes of an item.
        upright: turn them as their EXIF orientation says.

    Raises:
        OpenIliasError: an image cannot be read or described and ``means.skip`` is False, or the model fails.
    """
    begun: deque[tuple[list[int], list[Any], Callable[[], T]]] = deque()

    def finish() -> tuple[list[int], T]:
        places, batch, result = begun.popleft()
        with _naming(items, places, batch, work):
            made = result()
        step(len(places))
        return places, made

    jobs = _jobs(items, work, upright, boxes)
    processes = means.processes(len(items))
    with ordered_map(processes, lost=_lost, timeout=means.timeout, ahead=AHEAD) as run:
        if processes > 1 and work.shares_cores:
            prepared = enumerate(_in_turns(run, jobs, AHEAD * processes))
        else:
            prepared = enumerate(_in_order(run, jobs))
        for places, batch in _batches(_timed(prepared, step), work.group_of, means, skipped, step):
            with _naming(items, places, batch, work):
                begun.append((places, batch, work.begin(batch)))
            if len(begun) == 2:  # a GPU computes one batch while the next is gathered
                yield finish()
    while begun:
        yield finish()


@contextmanager
def _naming(items: Sequence[Item], places: list[int], batch: list[Any], work: Work[T]) -> Iterator[None]:
    """Name the image that a failing batch fails for."""
    try:
        yield
    except OpenIliasError:
        for place, one in zip(places, batch, strict=True):
            try:
                work.begin([one])()
            except OpenIliasError as error:
                error.where = error.where or items[place].id
                raise
        raise


def _no_boxes(item: Item) -> tuple[Box, ...]:
    return ()


def _jobs(
    items: Sequence[Item], work: Work[T], upright: bool, boxes: Callable[[Item], tuple[Box, ...]]
) -> Iterator[_Job]:
    for start in range(0, len(items), CHUNK):
        some = tuple(items[start : start + CHUNK])
        yield _Job(some, tuple(boxes(item) for item in some), work.prepare, upright, work.compat)


def prepare_job(job: _Job) -> list[Any | Failure]:
    """Read, decode and prepare the images of a job; runs in a worker process.

    Raises:
        OpenIliasError: an image cannot be read from the disk, or has no box where one is needed.
    """
    return [_prepared(item, boxes, job) for item, boxes in zip(job.items, job.boxes, strict=True)]


def _prepared(item: Item, boxes: tuple[Box, ...], job: _Job) -> Any | Failure:
    try:
        return job.prepare(decode(item.read(), where=item.id, upright=job.upright, compat=job.compat), boxes)
    except UnreadableImageError as error:
        return Failure(item.id, error.what, error.fix, "unreadable")
    except OpenIliasError as error:
        error.where = error.where or item.id
        raise


def _lost(job: _Job, loss: Loss) -> list[Array | Failure] | _Job:
    """Name the image of a job that was lost; a job of several is to be done again, image by image."""
    if len(job.items) > 1:
        return job
    what, fix = {
        "crash": ("The process that read this image died.", "See whether the memory is too small"),
        "timeout": ("Reading this image took too long.", "See whether the disk answers, or give more --timeout"),
    }[loss]
    return [Failure(job.items[0].id, what, f"{fix}; or pass over such images with --skip-unreadable.", loss)]


def _in_order(run: Callable[..., Iterator[Any]], jobs: Iterable[_Job]) -> Iterator[Array | Failure]:
    for done in run(prepare_job, jobs):
        if isinstance(done, _Job):
            singles = [
                _Job((item,), (boxes,), done.prepare, done.upright, done.compat)
                for item, boxes in zip(done.items, done.boxes, strict=True)
            ]
            for single in run(prepare_job, singles):
                yield from single
        else:
            yield from done


def _in_turns(run: Callable[..., Iterator[Any]], jobs: Iterator[_Job], at_once: int) -> Iterator[Array | Failure]:
    """Do some jobs, and none while their results are used: a network on the same cores would be 20 % slower."""
    while some := list(islice(jobs, at_once)):
        yield from list(_in_order(run, some))


def _timed(prepared: Iterator[tuple[int, Array | Failure]], step: Step) -> Iterator[tuple[int, Array | Failure]]:
    """Count the time that the next image is waited for."""
    while True:
        with step.waiting():
            one = next(prepared, None)
        if one is None:
            return
        yield one


def _batches(
    prepared: Iterable[tuple[int, Any]],
    group_of: Callable[[Any], Hashable],
    means: Means,
    skipped: dict[int, Skipped],
    step: Step,
) -> Iterator[tuple[list[int], list[Any]]]:
    """Gather what is prepared of one group into batches; which go together depends on the source order alone."""
    waiting: dict[Hashable, list[tuple[int, Any]]] = {}
    held = 0
    for place, array in prepared:
        if isinstance(array, Failure):
            if not means.skip:
                raise UnreadableImageError(array.what, where=array.id, fix=array.fix)
            skipped[place] = Skipped(array.id, array.what, array.status)
            step()
            continue
        key = group_of(array)
        group = waiting.setdefault(key, [])
        group.append((place, array))
        held += 1
        if len(group) < means.batch_size:
            if held < WINDOW * means.batch_size:
                continue
            key = max(waiting, key=lambda key: len(waiting[key]))
        held -= len(waiting[key])
        yield _apart(waiting.pop(key))
    while waiting:
        yield _apart(waiting.pop(next(iter(waiting))))


def _apart(group: list[tuple[int, Any]]) -> tuple[list[int], list[Any]]:
    return [place for place, _ in group], [array for _, array in group]
