"""Pictures that look alike by their descriptors: pairs of the core, and of the core and distractors, for review."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.descriptors.store import DescriptorStore, open_store
from openilias.search.database import database_of
from openilias.search.exact import topk
from openilias.search.origin import common_origin

NEIGHBOURS = 50
"""Of each image at most so many are looked at."""


def stores_of(paths: Sequence[Path]) -> tuple[list[DescriptorStore], list[DescriptorStore]]:
    """Open stores of descriptors: of the core, and of distractors.

    Raises:
        OpenIliasError: they do not belong together, or none of them is of the core.
    """
    stores = [open_store(path) for path in paths]
    core = [store for store in stores if store.partition in ("image_queries", "positives")]
    others = [store for store in stores if store.partition == "distractors"]
    strange = [store for store in stores if store not in core and store not in others]
    if strange or not core:
        where = strange[0].folder if strange else None
        raise OpenIliasError(
            "Descriptors of image queries and positives are compared, with those of distractors.",
            where=where,
            fix="Give stores of ilias extract --partition image_queries, positives, distractors.",
        )
    if len(stores) > 1:
        common_origin(core[:1], [*core[1:], *others])
    return core, others


def alike_pairs(paths: Sequence[Path], least: float) -> Iterator[tuple[str, str, float]]:
    """Yield the pairs of ids whose descriptors have at least this inner product, each once.

    Args:
        paths: descriptor stores of one model: of image queries and positives, which are compared with each other and
            with all distractors of which there are stores.
        least: inner product.

    Raises:
        OpenIliasError: the stores do not belong together, or none of them is of the core.
    """
    core, others = stores_of(paths)
    ids, vectors = _load(core)
    database = database_of([*core, *others])
    rows, scores = topk(
        vectors, (block for shard in database.shards for block in shard.blocks()), min(NEIGHBOURS, database.rows)
    )
    wanted = np.unique(rows[scores >= least])
    names = dict(zip(wanted.tolist(), database.ids_at(wanted), strict=True))
    place = {item: number for number, item in enumerate(ids)}
    seen: set[tuple[str, str]] = set()
    for number, item in enumerate(ids):
        for row, score in zip(rows[number].tolist(), scores[number].tolist(), strict=True):
            if score < least or (other := names[row]) == item:
                continue
            pair = (item, other) if place.get(other, len(ids)) > number else (other, item)
            if pair not in seen:
                seen.add(pair)
                yield *pair, score


def _load(stores: Sequence[DescriptorStore]) -> tuple[list[str], Any]:
    ids: list[str] = []
    blocks = []
    for store in stores:
        for shard in store.shards:
            ids += shard.ids()
            blocks += [np.asarray(block) for block in shard.blocks()]
    return ids, np.concatenate(blocks)
