"""Describing a partition of a benchmark by local descriptors, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.executors import usable_cores
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import Partition
from openilias.core.memory import memory_kept
from openilias.core.progress import Step, progress, tell
from openilias.core.protocol import Compat
from openilias.core.threads import one_thread_per_worker
from openilias.data import Item, SourceShard
from openilias.descriptors.extract import TAR_INDEX, Expected, Options, Source, contents_of
from openilias.descriptors.local_store import (
    FILES,
    KIND,
    LocalStore,
    finished_local_shard,
    open_local_store,
    read_local_marker,
)
from openilias.descriptors.local_writing import writing_local_shard
from openilias.descriptors.making import making
from openilias.descriptors.pipeline import Means, Work, in_batches
from openilias.descriptors.store import Skipped
from openilias.images.boxes import Box
from openilias.models.local_backbone import LocalBackbone
from openilias.models.local_features import LocalFeatures

ALGORITHM_VERSION = 1
AT_ONCE = 512
"""Images whose descriptors are held before they are written."""


@dataclass(frozen=True)
class LocalOptions:
    """How it is done, and of which images.

    Attributes:
        work: as of global descriptors; ``retry`` describes what was passed over.
        compat: ``official`` does not turn the distractors of tars upright.
        only: ids of a shortlist; None describes all.
        dtype: of the stored numbers.
    """

    work: Options = field(default_factory=Options)
    compat: Compat = "paper"
    only: frozenset[str] | None = None
    dtype: str = "float16"


def extract_local(
    benchmark: Source,
    backbone: LocalBackbone,
    partition: Partition,
    out: Path,
    options: LocalOptions = LocalOptions(),
) -> LocalStore:
    """Describe a partition, or a shortlist of it, into a store; finished shards are kept, so a killed run continues.

    Raises:
        OpenIliasError: nothing to describe, an unreadable image, an output in the way, a model that fails, or a share
            that leaves shards of the store unfinished.
    """
    extract_local_share(benchmark, backbone, partition, out, options)
    return open_local_store(out)


def extract_local_share(
    benchmark: Source, backbone: LocalBackbone, partition: Partition, out: Path, options: LocalOptions
) -> list[str]:
    """Do :func:`extract_local` for the shards of ``options.work.share``; return the shards that are not finished.

    Raises:
        OpenIliasError: as :func:`extract_local`, but for unfinished shards.
    """
    shards = benchmark.shards(partition)
    if not shards or partition == "text_queries":
        raise OpenIliasError(
            f"This benchmark has no images of {partition}.", where=benchmark.root, fix="Choose another partition."
        )
    made_from = {
        "algorithm_version": ALGORITHM_VERSION,
        "benchmark": benchmark.fingerprint,
        "local": backbone.description(),
        "weights": backbone.weights_digest,
        "compat": options.compat,
        "dtype": options.dtype,
        "partition": partition,
        "contents": contents_of(shards),
        "skip_unreadable": options.work.skip_unreadable,
    }
    if options.only is not None:
        made_from["shortlist"] = fingerprint_lines(sorted(options.only))
    sources = [shard.name for shard in shards]
    with making(
        out,
        made_from=made_from,
        sources=sources,
        share=options.work.share,
        overwrite=options.work.overwrite,
        kind=KIND,
        ours=FILES,
        dims=backbone.dims,
        dtype=options.dtype,
        weights_from=backbone.weights_from,
        weight_from=backbone.weight_from,
    ):
        work = _LocalWork(benchmark, backbone, partition, out, options)
        work.do(options.work.share.take(list(enumerate(shards))))
    return [source for number, source in enumerate(sources) if read_local_marker(out, number) is None]


@dataclass(frozen=True)
class _LocalWork:
    """What the shards of a store have in common."""

    benchmark: Source
    backbone: LocalBackbone
    partition: Partition
    out: Path
    options: LocalOptions

    def do(self, shards: list[tuple[int, SourceShard]]) -> None:
        """Describe the shards that are not finished, or, to try again, not complete."""
        left = [(number, shard) for number, shard in shards if self._is_open(number)]
        if not left:
            return
        tell(f"describe {self.partition}: {self.backbone.name}, weights by {self.backbone.weight_from}")
        expected = Expected([shard for _, shard in left], 0)
        whole = self.options.only is None  # of a shortlist it is not known before which shards hold how much of it
        total = expected.total() if whole else None
        with (
            progress(f"describe {self.partition}", total=total, unit="images") as step,
            one_thread_per_worker(),
            memory_kept(),
        ):
            for number, shard in left:
                items, unusable = self._contents(shard)
                expected.found(shard, len(items))
                step.expect(expected.total() if whole else None)
                self._shard(number, shard, items, unusable, step)

    def _is_open(self, number: int) -> bool:
        shard = finished_local_shard(self.out, number, check=self.options.work.overwrite)
        return shard is None or (self.options.work.retry and any(one.status != "unusable" for one in shard.skipped))

    def _contents(self, shard: SourceShard) -> tuple[Sequence[Item], list[Skipped]]:
        contents = shard.contents(self.out.parent / TAR_INDEX)
        if contents.unusable and not self.options.work.skip_unreadable:
            names = [f"{member.name} ({member.reason})" for member in contents.unusable]
            raise OpenIliasError(
                f"{len(names)} members of this shard look like images and cannot be used: {first_few(names)}.",
                where=shard.tar,
                fix="Rebuild the shard, or go on without them with --skip-unreadable.",
            )
        only = self.options.only
        items = contents.items if only is None else [item for item in contents.items if item.id in only]
        return items, [Skipped(f"{shard.name}/{m.name}", m.reason, "unusable") for m in contents.unusable]

    def _shard(
        self, number: int, shard: SourceShard, items: Sequence[Item], unusable: list[Skipped], step: Step
    ) -> None:
        skipped = list(unusable)
        with writing_local_shard(
            self.out,
            number,
            source=shard.name,
            dims=self.backbone.dims,
            dtype=self.options.dtype,
            skipped=skipped,
        ) as writer:
            for start in range(0, len(items), AT_ONCE):
                some = items[start : start + AT_ONCE]
                for item, features in self._described(shard, some, skipped, step):
                    writer.add(item, features)

    def _described(
        self, shard: SourceShard, items: Sequence[Item], skipped: list[Skipped], step: Step
    ) -> Iterator[tuple[str, LocalFeatures]]:
        """Yield the images that could be described, in order."""
        backbone, made = self.backbone, dict[int, LocalFeatures]()
        lost: dict[int, Skipped] = {}

        def begin(batch: list[Any]) -> Any:
            found = backbone.describe(batch)
            return lambda: found

        work: Work[list[LocalFeatures]] = Work(
            backbone.preparation(),
            backbone.group_of,
            begin,
            compat=self.options.compat,
            shares_cores=backbone.device == "cpu",
        )
        upright = shard.tar is None or self.options.compat == "paper"
        for places, found in in_batches(items, work, self._means(), step, lost, boxes=_no_boxes, upright=upright):
            made.update(zip(places, found, strict=True))
        skipped += [lost[place] for place in sorted(lost)]
        for place in sorted(made):
            yield items[place].id, made[place]

    def _means(self) -> Means:
        work = self.options.work
        return Means(
            work.batch_size or self.backbone.batch_size,
            work.workers or usable_cores(),
            work.timeout,
            work.skip_unreadable,
            guarded=work.retry,
        )


def _no_boxes(item: Item) -> tuple[Box, ...]:
    return ()
