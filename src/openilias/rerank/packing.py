"""Stores of local descriptors as bits: learned from a sample of any store, packed shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.fingerprints import fingerprint, fingerprint_lines
from openilias.core.progress import progress
from openilias.core.shards import Share
from openilias.descriptors.local_store import (
    FILES,
    KIND,
    LocalShard,
    LocalStore,
    finished_local_shard,
    read_local_marker,
)
from openilias.descriptors.local_writing import writing_local_shard
from openilias.descriptors.making import making
from openilias.models.local_features import LocalFeatures
from openilias.rerank.itq import Binarisation, learn_itq, read_binarisation, write_binarisation

ALGORITHM_VERSION = 1
_ALL = Share()


@dataclass(frozen=True)
class ItqSettings:
    """How a binarisation is learned.

    Attributes:
        bits: of a packed descriptor, a multiple of 64.
        sample: at most so many descriptors are learned from, drawn uniformly.
        iterations: of iterative quantisation.
        centred: subtract the mean; AMES does not.
        seed: of all that is drawn.
    """

    bits: int = 128
    sample: int = 500_000
    iterations: int = 50
    centred: bool = False
    seed: int = 0

    def made_from(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return {
            "algorithm_version": ALGORITHM_VERSION,
            "bits": self.bits,
            "sample": self.sample,
            "iterations": self.iterations,
            "centred": self.centred,
            "seed": self.seed,
        }


def sample_of(stores: Sequence[LocalStore], count: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Draw descriptors uniformly from all of some stores; all, if there are not more. They keep their order.

    Raises:
        OpenIliasError: the stores hold bits, or other dimensions than one another.
    """
    kinds = {(store.dims, store.bits) for store in stores}
    if len(kinds) != 1 or any(bits is not None for _, bits in kinds):
        raise OpenIliasError(
            "A binarisation is learned from stores of numbers of the same dimensions.",
            where=", ".join(str(store.folder) for store in stores),
            fix="Give stores that one model made, not packed ones.",
        )
    # Whatever the order in which they are named.
    shards = [shard for store in sorted(stores, key=local_state_of) for shard in store.shards]
    total = sum(shard.count for shard in shards)
    if total > count:
        chosen = np.sort(np.random.default_rng([seed, 1]).choice(total, count, replace=False, shuffle=False))
    else:
        chosen = np.arange(total)
    drawn, start = [], 0
    for shard in shards:
        inside = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + shard.count)] - start
        if len(inside):
            shard.verify()
            drawn.append(np.asarray(shard.descriptors[inside], np.float32))
        start += shard.count
    return np.concatenate(drawn) if drawn else np.zeros((0, stores[0].dims), np.float32)


def learn_itq_to(
    stores: Sequence[LocalStore], settings: ItqSettings, out: Path, *, overwrite: bool = False
) -> Binarisation:
    """Learn a binarisation from a sample of stores and write it; does nothing if it was made from the same.

    Raises:
        OpenIliasError: as :func:`sample_of` and :func:`openilias.rerank.itq.learn_itq`, or ``out`` is in the way.
    """
    made_from = settings.made_from() | {"stores": sorted(local_state_of(store) for store in stores)}
    if out.exists():
        try:
            made, before = read_binarisation(out)
        except OpenIliasError:
            if not overwrite:
                raise
        else:
            if fingerprint(before) == fingerprint(made_from):
                return made
            if not overwrite:
                raise OpenIliasError(
                    "This binarisation was learned from something else.",
                    where=out,
                    fix="Give another --out, or --overwrite to replace it.",
                )
    sample = sample_of(stores, settings.sample, seed=settings.seed)
    made = learn_itq(
        sample, settings.bits, iterations=settings.iterations, seed=settings.seed, centred=settings.centred
    )
    write_binarisation(made, out, made_from=made_from)
    return made


def pack_store(
    store: LocalStore,
    binarisation: Binarisation,
    out: Path,
    *,
    most: int | None = None,
    share: Share = _ALL,
    overwrite: bool = False,
) -> list[str]:
    """Pack a store to bits; finished shards are kept. Return the shards that are left to others.

    Args:
        store: of numbers.
        binarisation: learned from descriptors of this model.
        out: folder of the packed store.
        most: keep so many descriptors of an image, those of largest weight; all by default.
        share: only every n-th shard.
        overwrite: replace what was made from something else.

    Raises:
        OpenIliasError: the store is packed already, damaged, or of other dimensions; or ``out`` is in the way.
    """
    if store.bits is not None:
        raise OpenIliasError("This store is packed already.", where=store.folder, fix="Give the one it was made from.")
    if store.dims != binarisation.dims:
        raise OpenIliasError(
            f"This binarisation takes {binarisation.dims} dimensions, these descriptors have {store.dims}.",
            where=store.folder,
            fix="Learn one from descriptors of this model: ilias local itq.",
        )
    made_from = store.manifest["made_from"] | {
        "binarisation": {"sha256": binarisation.digest, "bits": binarisation.bits},
        "packed": {"algorithm_version": ALGORITHM_VERSION, "from": local_state_of(store)},
    }
    if most is not None:
        made_from["most"] = most
    sources = [shard.source for shard in store.shards]
    kept = {name: store.manifest[name] for name in ("weights_from", "weight_from") if name in store.manifest}
    with making(
        out,
        made_from=made_from,
        sources=sources,
        share=share,
        overwrite=overwrite,
        kind=KIND,
        ours=FILES,
        dims=binarisation.bits,
        bits=binarisation.bits,
        dtype="uint8",
        **kept,
    ):
        left = [n for n in share.take(range(len(sources))) if finished_local_shard(out, n, check=overwrite) is None]
        with progress("pack", total=sum(store.shards[n].images for n in left), unit="images") as step:
            for number in left:
                shard = store.shards[number]
                shard.verify()
                with writing_local_shard(
                    out,
                    number,
                    source=shard.source,
                    dims=binarisation.bits // 8,
                    dtype=np.uint8,
                    skipped=list(shard.skipped),
                ) as writer:
                    for item, features in _packed(shard, binarisation, most):
                        writer.add(item, features)
                        step()
    return [source for number, source in enumerate(sources) if read_local_marker(out, number) is None]


def _packed(shard: LocalShard, binarisation: Binarisation, most: int | None) -> Iterator[tuple[str, LocalFeatures]]:
    for place, item in enumerate(shard.id_array().to_pylist()):
        found = shard.take(place, most)
        yield item, LocalFeatures(binarisation.pack(found.descriptors), found.geometry, found.height, found.width)


def local_state_of(store: LocalStore) -> str:
    """Return what identifies the content of a store."""
    files = (pair for shard in store.shards for pair in sorted(shard.digests.items()))
    digests = fingerprint_lines(f"{name} {digest}" for name, digest in files)
    return f"{store.partition} {store.fingerprint} {digests}"
