"""Adapting descriptors: a store to another one, or block by block where they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.adapt.linear import TILE_ROWS, LinearMap, adapt, unfit
from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import fingerprint, fingerprint_lines
from openilias.core.progress import Step, progress
from openilias.core.shards import Share
from openilias.descriptors.making import making, unfinished
from openilias.descriptors.official import check_ids, is_official
from openilias.descriptors.store import (
    DescriptorStore,
    Floats,
    Shard,
    Skipped,
    finished_shard,
    open_store,
    rows_of_block,
    write_blocks,
)

ALGORITHM_VERSION = 1
_ALL = Share()


def adapted_origin(origin: Mapping[str, Any], linear: LinearMap, *, where: Path | None = None) -> dict[str, Any]:
    """Return what made a store (``origin()``, or ``made_from`` of its manifest) as that of the adapted store.

    Raises:
        OpenIliasError: it is adapted already; ``where`` is the store, for the message.
    """
    if "adaptation" in origin:
        raise OpenIliasError(
            "These descriptors are adapted already.", where=where, fix="Give the store they were made from."
        )
    dims = {"dims": linear.outputs} if "dims" in origin else {}  # of official files nothing else is known
    return {**origin, **dims, "adaptation": {"sha256": linear.digest, "dims": linear.outputs}}


def adapted_blocks(shard: Shard, linear: LinearMap, dtype: npt.DTypeLike | None = None) -> Iterator[Floats]:
    """Yield (n, out) blocks: the bytes that the adapted shard holds. :meth:`Shard.verify` is left to the caller.

    Args:
        shard: not adapted.
        linear: the map.
        dtype: of the blocks; that of the shard by default, as in an adapted store.

    Raises:
        OpenIliasError: as :func:`adapt`, or the shard is damaged.
    """
    kept = shard.dtype if dtype is None else dtype
    step = -(-rows_of_block(linear.inputs, shard.dtype) // TILE_ROWS) * TILE_ROWS
    start = 0
    for block in shard.blocks(step):
        made = adapt(linear, block, start, where=lambda row: _named(shard, row))
        yield made.astype(kept, copy=False)
        start += len(block)


@dataclass(frozen=True)
class AdaptedShard:
    """A shard whose descriptors are adapted while they are read.

    Attributes:
        shard: not adapted.
        linear: the map.
    """

    shard: Shard
    linear: LinearMap

    @property
    def source(self) -> str:
        """Its name."""
        return self.shard.source

    @property
    def where(self) -> Path:
        """Where the shard is that it is made from."""
        return self.shard.where

    @property
    def rows(self) -> int:
        """How many descriptors there are."""
        return self.shard.rows

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the shard."""
        return self.shard.dtype

    @property
    def sha256(self) -> str:
        """Of the descriptors it is made from."""
        return self.shard.sha256

    @property
    def ids_sha256(self) -> str:
        """Of the ids, if they are a file of their own."""
        return self.shard.ids_sha256

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Samples that could not be described."""
        return self.shard.skipped

    @property
    def mapped(self) -> bool:
        """Blocks are made in memory."""
        return False

    def verify(self) -> None:
        """Raise OpenIliasError if what it is made from is not as it was."""
        self.shard.verify()

    def blocks(self, rows: int | None = None) -> Iterator[Floats]:
        """Yield the blocks of :func:`adapted_blocks`, whatever ``rows``."""
        return adapted_blocks(self.shard, self.linear)

    def id_array(self) -> Any:
        """Return the ids of the rows as a pyarrow.ChunkedArray of strings."""
        return self.shard.id_array()

    def ids(self) -> list[str]:
        """Return the ids of the rows."""
        return self.shard.ids()


def adapted(store: DescriptorStore, linear: LinearMap) -> DescriptorStore:
    """Return a store that adapts its descriptors while they are read; one adapted by the same map stays as it is.

    Raises:
        OpenIliasError: it is adapted by another map, or has other dimensions.
    """
    done = store.manifest["made_from"].get("adaptation")
    if done is not None and done.get("sha256") == linear.digest:
        return store
    made_from = _made_from(store, linear)
    if store.dims != linear.inputs:
        raise unfit(linear, store.dims, str(store.folder))
    manifest = {**store.manifest, "made_from": made_from, "dims": linear.outputs, "fingerprint": fingerprint(made_from)}
    return DescriptorStore(store.folder, manifest, tuple(AdaptedShard(shard, linear) for shard in store.shards))


@dataclass(frozen=True)
class Adapting:
    """The adaptation of descriptors before they are stored: a :class:`openilias.descriptors.extract.Finish`.

    Attributes:
        linear: the map.
    """

    linear: LinearMap

    def check(self, dims: int) -> None:
        """Raise OpenIliasError if the map takes other dimensions."""
        if dims != self.linear.inputs:
            raise unfit(self.linear, dims, "the model")

    @property
    def dims(self) -> int:
        """Of what comes out."""
        return self.linear.outputs

    def origin(self, made_from: dict[str, Any]) -> dict[str, Any]:
        """Return what the adapted store is made from."""
        return adapted_origin(made_from, self.linear)

    def apply(self, descriptors: Floats, item: Callable[[int], str]) -> Floats:
        """Return (n, out) of (n, in), the bytes that :func:`adapt_store` makes of a whole shard."""
        return adapt(self.linear, descriptors, where=item)


def _named(shard: Shard, row: int) -> str:
    return f"{shard.where}, row {row} of {shard.source}, {shard.id_array()[row].as_py()}"


def adapt_store(
    store: DescriptorStore, linear: LinearMap, out: Path, *, overwrite: bool = False, share: Share = _ALL
) -> DescriptorStore:
    """Adapt a store to another one of the same shards, ids, order and type; what is finished is kept.

    Args:
        store: a store, or official files in place of one.
        linear: the map.
        out: folder of the adapted store.
        overwrite: replace what was made from something else, or is damaged.
        share: do only every n-th shard.

    Raises:
        OpenIliasError: the store is adapted already, has other dimensions or is damaged, a descriptor has no adapted
            one, the output is in the way, the disk is full, or the share leaves shards of the store unfinished.
    """
    adapt_share(store, linear, out, overwrite=overwrite, share=share)
    return open_store(out)


def adapt_share(
    store: DescriptorStore, linear: LinearMap, out: Path, *, overwrite: bool = False, share: Share = _ALL
) -> list[str]:
    """Do :func:`adapt_store` for the shards of ``share``; return the shards of the store that are not finished.

    Raises:
        OpenIliasError: as :func:`adapt_store`, but for unfinished shards.
    """
    made_from = _made_from(store, linear)
    if store.dims != linear.inputs:
        raise unfit(linear, store.dims, str(store.folder))
    if out.resolve() == store.folder.resolve():
        raise OpenIliasError("The output is the store itself.", where=out, fix="Give another --out.")
    known = {name: store.manifest[name] for name in ("weights_from",) if name in store.manifest}
    sources = [shard.source for shard in store.shards]
    with making(
        out, made_from=made_from, sources=sources, share=share, overwrite=overwrite, dims=linear.outputs, **known
    ):
        _adapt_shards(store, linear, out, share.take(range(len(sources))), check=overwrite)
    return unfinished(out, sources)


def _made_from(store: DescriptorStore, linear: LinearMap) -> dict[str, Any]:
    """Return the adapted origin, and which descriptors exactly: a retry changes them, and official files say nothing.

    Raises:
        OpenIliasError: the store is adapted already.
    """
    made_from = adapted_origin(store.manifest["made_from"], linear, where=store.folder)
    return made_from | {
        "contents": {
            "algorithm_version": ALGORITHM_VERSION,
            "described": made_from.get("contents"),
            "shards": fingerprint_lines(f"{one.source} {one.sha256} {one.ids_sha256}" for one in store.shards),
        }
    }


def _adapt_shards(store: DescriptorStore, linear: LinearMap, out: Path, numbers: list[int], *, check: bool) -> None:
    """Adapt the shards that are not finished."""
    left = [number for number in numbers if finished_shard(out, number, check=check) is None]
    if left and is_official(store.folder):
        check_ids(store.shards)
    with progress(f"adapt {store.partition}", total=sum(store.shards[n].rows for n in left), unit="rows") as step:
        for number in left:
            shard = store.shards[number]
            shard.verify()
            write_blocks(
                out,
                number,
                source=shard.source,
                ids=shard.id_array(),
                blocks=_counted(adapted_blocks(shard, linear), step),
                shape=(shard.rows, linear.outputs),
                dtype=shard.dtype,
                skipped=shard.skipped,
            )


def _counted(blocks: Iterator[Floats], step: Step) -> Iterator[Floats]:
    for block in blocks:
        yield block
        step(len(block))
