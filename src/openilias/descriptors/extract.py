"""Describing a partition of a benchmark, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import usable_cores
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import Partition
from openilias.core.memory import memory_kept
from openilias.core.progress import Step, progress, tell
from openilias.core.shards import Share
from openilias.core.threads import one_thread_per_worker
from openilias.data import Item, SourceShard
from openilias.descriptors.making import making, unfinished
from openilias.descriptors.pipeline import Described, Means, describe_items
from openilias.descriptors.store import (
    DescriptorStore,
    Floats,
    Skipped,
    StoreShard,
    finished_shard,
    open_store,
    write_shard,
)
from openilias.images.boxes import Box
from openilias.models.backbone import Backbone

ALGORITHM_VERSION = 3
TAR_INDEX = "tar_index"  # folder beside the stores of a run
TIMEOUT = 300.0
"""Seconds that reading and preparing an image may take, by default."""


@dataclass(frozen=True)
class Options:
    """How an extraction is done. Of all this only ``batch_size`` and ``skip_unreadable`` can change a store.

    Attributes:
        batch_size: images per forward pass; images of one shape go together. By default what suits the model: on CPUs
            16 for transformers and 8 for others, 32 elsewhere.
        workers: processes that decode and prepare; all cores by default. With one, this process does it.
        timeout: seconds that reading and preparing an image may take, where worker processes do it.
        skip_unreadable: list images that cannot be decoded, that take too long or that kill the process that reads
            them, and members of a tar that look like images and cannot be used, in the marker and go on.
        retry: try images again that were passed over before (of finished shards; replaced files make another store).
        overwrite: replace a store made from something else.
        share: do only every n-th shard.
    """

    batch_size: int | None = None
    workers: int | None = None
    timeout: float = TIMEOUT
    skip_unreadable: bool = False
    retry: bool = False
    overwrite: bool = False
    share: Share = field(default_factory=Share)

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OpenIliasError: a time-out that is not between 1 second and 11 days.
        """
        if not 1 <= self.timeout <= 1e6:
            raise OpenIliasError(f"A time-out of {self.timeout} s is not possible.", fix="Give 1 to 1000000 seconds.")

    def means(self, backbone: Backbone) -> Means:
        """Fill in what was left open."""
        return Means(
            self.batch_size or backbone.batch_size,
            self.workers or usable_cores(),
            self.timeout,
            self.skip_unreadable,
        )


class Source(Protocol):
    """What is described: a :class:`~openilias.data.Benchmark`, or a :class:`~openilias.data.TrainingSet`."""

    @property
    def root(self) -> Path:
        """The folder, for messages."""

    @property
    def fingerprint(self) -> str:
        """What identifies it."""

    def shards(self, partition: Partition) -> tuple[SourceShard, ...]:
        """Return the shards of work of a partition, in order."""

    def boxes(self, item: str) -> tuple[Box, ...]:
        """Return the boxes of an image."""


class Finish(Protocol):
    """What is done to descriptors before they are kept, as an adaptation does it."""

    def check(self, dims: int) -> None:
        """Raise OpenIliasError if descriptors of so many dimensions cannot be finished."""

    @property
    def dims(self) -> int:
        """Of what comes out."""

    def origin(self, made_from: dict[str, Any]) -> dict[str, Any]:
        """Return what a store is made from, with what is done to it."""

    def apply(self, descriptors: Floats, item: Callable[[int], str]) -> Floats:
        """Return (n, dims) of (n, D); ``item`` names a row for a message."""


def extract(
    benchmark: Source,
    backbone: Backbone,
    partition: Partition,
    out: Path,
    options: Options = Options(),
    finish: Finish | None = None,
) -> DescriptorStore:
    """Describe a partition into a store; finished shards are kept, so a killed run continues.

    The headers of each tar are read once: ``tar_index`` beside the store keeps them for all stores of a run.

    Args:
        benchmark: what to describe.
        backbone: with what, bound to its protocol.
        partition: which part.
        out: folder of the store.
        options: how.
        finish: what is done to the descriptors of images before they are kept.

    Raises:
        OpenIliasError: nothing to describe, an unreadable image, an output in the way, a model that fails, or a share
            that leaves shards of the store unfinished.
    """
    extract_share(benchmark, backbone, partition, out, options, finish)
    return open_store(out)


def extract_share(
    benchmark: Source,
    backbone: Backbone,
    partition: Partition,
    out: Path,
    options: Options,
    finish: Finish | None = None,
) -> list[str]:
    """Do :func:`extract` for the shards of ``options.share``; return the shards of the store that are not finished.

    Raises:
        OpenIliasError: as :func:`extract`, but for unfinished shards.
    """
    shards = benchmark.shards(partition)
    if not shards:
        raise OpenIliasError(f"This benchmark has no {partition}.", where=benchmark.root, fix="Complete it.")
    texts = {}
    if partition == "text_queries":
        backbone.encode_texts([])  # says at once if the model cannot
        digest = backbone.text_digest([_text(item) for shard in shards for item in shard.items()])
        texts = {} if digest is None else {"texts": digest}
    made_from = description_of(benchmark, backbone) | {
        "protocol": backbone.protocol.seen_by(partition).description(),
        "partition": partition,
        "contents": contents_of(shards),
        "skip_unreadable": options.skip_unreadable,
        **texts,
    }
    if finish is not None:
        finish.check(backbone.dims)
        made_from = finish.origin(made_from)
    sources = [shard.name for shard in shards]
    with making(
        out,
        made_from=made_from,
        sources=sources,
        share=options.share,
        overwrite=options.overwrite,
        dims=backbone.dims if finish is None else finish.dims,
        weights_from=backbone.weights_from,
    ):
        work = _Work(benchmark, backbone, partition, out, options.means(backbone), finish)
        work.do(options.share.take(list(enumerate(shards))), retry=options.retry, check=options.overwrite)
    return unfinished(out, sources)


def contents_of(shards: tuple[SourceShard, ...]) -> str:
    """Return the fingerprint of names and sizes of the files to describe: a replaced file is noticed by its size.

    Raises:
        OpenIliasError: a file is missing.
    """
    files = [(item.id, item.path) for shard in shards for item in shard.files]
    files += [(shard.name, shard.tar) for shard in shards if shard.tar is not None]
    try:
        return fingerprint_lines(f"{name} {path.stat().st_size}" for name, path in files)
    except OSError as error:
        raise OpenIliasError(
            f"A file of the benchmark is missing: {error.strerror}.",
            where=error.filename,
            fix="Complete the benchmark.",
        ) from None


def description_of(benchmark: Source, backbone: Backbone) -> dict[str, Any]:
    """Return everything the descriptors depend on, as JSON values."""
    return {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": benchmark.fingerprint,
        "model": backbone.spec.description(),
        "weights": backbone.weights_digest,
        "protocol": backbone.protocol.description(),
    }


@dataclass(frozen=True)
class _Work:
    """What the shards of a store have in common."""

    benchmark: Source
    backbone: Backbone
    partition: Partition
    out: Path
    means: Means
    finish: Finish | None = None

    def do(self, shards: list[tuple[int, SourceShard]], *, retry: bool, check: bool) -> None:
        """Describe the shards that are not finished; with ``retry``, what was passed over in those that are."""
        markers = {number: finished_shard(self.out, number, check=check) for number, _ in shards}
        left = [(number, shard) for number, shard in shards if markers[number] is None]
        again = [(shard, marker) for number, shard in shards if retry and (marker := markers[number]) and _open(marker)]
        if not left and not again:
            return
        unit = "texts" if self.partition == "text_queries" else "images"
        expected = Expected([shard for _, shard in left], sum(len(_open(marker)) for _, marker in again))
        with (
            progress(f"describe {self.partition}", total=expected.total(), unit=unit) as step,
            one_thread_per_worker(),
            memory_kept(),
        ):
            for shard, marker in again:
                self._retry(shard, marker, step)
            for number, shard in left:
                items, unusable = self._contents(shard)
                expected.found(shard, len(items))
                step.expect(expected.total())
                self._shard(number, shard, items, unusable, step)

    def _contents(self, shard: SourceShard) -> tuple[Sequence[Item], list[Skipped]]:
        contents = shard.contents(self.out.parent / TAR_INDEX)
        if contents.unusable and not self.means.skip:
            names = [f"{member.name} ({member.reason})" for member in contents.unusable]
            raise OpenIliasError(
                f"{len(names)} members of this shard look like images and cannot be used: {first_few(names)}.",
                where=shard.tar,
                fix="Rebuild the shard, or go on without them with --skip-unreadable.",
            )
        return contents.items, [Skipped(f"{shard.name}/{m.name}", m.reason, "unusable") for m in contents.unusable]

    def _shard(
        self, number: int, shard: SourceShard, items: Sequence[Item], unusable: list[Skipped], step: Step
    ) -> None:
        if self.partition == "text_queries":
            texts = self.backbone.encode_texts([_text(item) for item in items])
            step(len(items))
            # Texts are few and kept in full, as the official files have them.
            made = self._finished(Described(list(range(len(items))), texts), items)
        else:
            if not step.done:
                tell(self._plan(len(items)))
            made = self._described(shard, items, step)
        write_shard(
            self.out,
            number,
            source=shard.name,
            ids=[items[place].id for place in made.places],
            descriptors=made.descriptors,
            skipped=[*unusable, *(made.skipped[place] for place in sorted(made.skipped))],
        )

    def _retry(self, shard: SourceShard, marker: StoreShard, step: Step) -> None:
        """Describe what was passed over; rows that come of it go where the source has them."""
        marker.verify()
        all_items, _ = self._contents(shard)
        wanted = {item.id for item in _open(marker)}
        items = [item for item in all_items if item.id in wanted]
        made = replace(self, means=replace(self.means, guarded=True))._described(shard, items, step)
        before = {item: row for row, item in enumerate(marker.ids())}
        new = {items[place].id: made.descriptors[row] for row, place in enumerate(made.places)}
        if not new:
            return
        old = marker.descriptors()
        ids = [item.id for item in all_items if item.id in before or item.id in new]
        rows = np.stack([new[item] if item in new else old[before[item]] for item in ids])
        failed = {one.id: one for one in made.skipped.values()}
        skipped = [failed.get(one.id, one) for one in marker.skipped if one.id not in new]
        write_shard(self.out, marker.number, source=shard.name, ids=ids, descriptors=rows, skipped=skipped)

    def _described(self, shard: SourceShard, items: Sequence[Item], step: Step) -> Described:
        made = describe_items(
            items,
            self.backbone,
            self.partition,
            self.means,
            step,
            boxes=self._boxes,
            # The official code does not turn the distractors of tars upright.
            upright=shard.tar is None or self.backbone.protocol.compat == "paper",
            dtype=self.backbone.protocol.dtype,
        )
        return self._finished(made, items)

    def _finished(self, made: Described, items: Sequence[Item]) -> Described:
        if self.finish is None:
            return made
        # What is finished are the numbers as they would be stored: it is the same as finishing a store.
        done = self.finish.apply(made.descriptors, lambda row: items[made.places[row]].id)
        return replace(made, descriptors=done.astype(made.descriptors.dtype))

    def _boxes(self, item: Item) -> tuple[Box, ...]:
        return self.benchmark.boxes(item.id)

    def _plan(self, images: int) -> str:
        """Say what the work will need of the memory."""
        side = 512
        one = self.backbone.prepare(Image.new("RGB", (side, side)), (Box(0, 0, side, side),), self.partition).nbytes
        rows = images * self.backbone.dims * np.dtype(self.backbone.protocol.dtype).itemsize
        means = replace(self.means, workers=self.means.processes(images))
        held = min(means.held(), images)
        return (
            f"describe {self.partition}: batches of {means.batch_size}, {means.workers} "
            f"process{'' if means.workers == 1 else 'es'} to decode; at most {held} prepared images at a time "
            f"(about {held * one / 2**20:.0f} MB), descriptors of a shard {rows / 2**20:.0f} MB"
        )


class Expected:
    """How many images there will be: counted where it is known, else judged by the sizes of the tars."""

    def __init__(self, shards: list[SourceShard], more: int) -> None:
        self._known = more + sum(len(shard.files) for shard in shards)
        self._unknown = {shard.name: shard.tar.stat().st_size for shard in shards if shard.tar is not None}
        self._images = self._bytes = 0

    def found(self, shard: SourceShard, images: int) -> None:
        """Take in the number of images of a tar."""
        if shard.tar is not None:
            self._images += images
            self._bytes += self._unknown.pop(shard.name)

    def total(self) -> int | None:
        """Return the number, None while there is nothing to judge by."""
        if self._unknown and not self._bytes:
            return None
        each = self._images / self._bytes if self._bytes else 0
        return self._known + self._images + round(sum(self._unknown.values()) * each)


def _open(marker: StoreShard) -> list[Skipped]:
    """Return what was passed over and can be tried again."""
    return [one for one in marker.skipped if one.status != "unusable"]


def _text(item: Item) -> str:
    try:
        return item.read().decode("utf-8")
    except UnicodeDecodeError:
        raise OpenIliasError("This text query is not UTF-8.", where=item.path) from None
