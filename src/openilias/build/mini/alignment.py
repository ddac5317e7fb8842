"""The same images in the stores of several models, whatever their order there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openilias.build.mini.scores import Scores, names_of, read_scores
from openilias.core.errors import OpenIliasError
from openilias.core.ids import distractor_shard
from openilias.descriptors.store import DescriptorStore, Shard

Keys = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class Scored:
    """A store, and the folder of its scores."""

    store: DescriptorStore
    folder: Path


@dataclass(frozen=True, eq=False)
class Together:
    """The images of one source that all stores have.

    Attributes:
        source: its name.
        ids: (n,) ids, sorted by bytes.
        scores: of each store, (n,) float32.
        left_out: images that are not in all stores.
    """

    source: str
    ids: Keys
    scores: tuple[Scores, ...]
    left_out: int


def together(scored: Sequence[Scored]) -> Iterator[Together]:
    """Yield source by source, by name, so that images come in the order of their ids; one source is in memory.

    Raises:
        OpenIliasError: the stores have other sources, an id stands twice in one, or scores are missing.
    """
    numbers = [{shard.source: number for number, shard in enumerate(one.store.shards)} for one in scored]
    for source in names_of([one.store for one in scored]):
        ids, rows, scores = [], [], []
        read: dict[str, tuple[Keys, npt.NDArray[np.int64]]] = {}  # most stores have the same ids in the same order
        for one, of in zip(scored, numbers, strict=True):
            shard = one.store.shards[of[source]]
            known = read.get(shard.ids_sha256) if shard.ids_sha256 else None
            here, order = known or _sorted_ids(shard)
            read[shard.ids_sha256] = here, order
            ids.append(here)
            rows.append(order)
            scores.append(read_scores(one.folder, of[source], shard))
        common, differ = ids[0], False
        for others in ids[1:]:
            if others is not common and not np.array_equal(common, others):
                common, differ = np.intersect1d(common, others, assume_unique=True), True
        places = [
            order if len(common) == len(here) else order[np.searchsorted(here, common)]
            for here, order in zip(ids, rows, strict=True)
        ]
        left_out = len(np.unique(np.concatenate(ids))) - len(common) if differ else 0
        taken = tuple(np.asarray(values[place]) for values, place in zip(scores, places, strict=True))
        yield Together(source, common, taken, left_out)


def _sorted_ids(shard: Shard) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Return the ids in order, and the rows where they stand."""
    ids = np.array([item.encode() for item in shard.ids()], np.bytes_)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if (ids[1:] == ids[:-1]).any():
        raise OpenIliasError(f"An id stands twice in the shard {shard.source}.", where=shard.where)
    return ids, order


def key_of(item: bytes) -> bytes:
    """Return how the mini list names a distractor: its key without the tar, a file without folder and ending."""
    name = item.split(b"/", 1)[-1]
    return name if distractor_shard(item.decode()) is not None else name.rpartition(b".")[0] or name
