"""How well each distractor answers to any of the texts: the largest similarity, streamed over a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path
from openilias.core.progress import progress
from openilias.core.shards import Share
from openilias.descriptors.store import DescriptorStore, Shard, told_if_full

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

ALGORITHM_VERSION = 1  # changes when the same store and texts give other scores

_ROWS = 2048  # similarities of so many images with all texts are in memory: 80 MB for 9,374 texts
_AT_ONCE = 1 << 22  # numbers that are multiplied exactly at a time
_ALL = Share()


def largest_similarities(blocks: Iterable[npt.NDArray[Any]], texts: Floats, *, device: str = "cpu") -> Scores:
    """Return (N,) float32, the largest inner product of each row with any text.

    It is the product of the stored vectors in float64, rounded once, so that it depends on no block, order or device. A
    first pass in float32 says which texts may be the nearest; only these are multiplied exactly.

    Args:
        blocks: (n, D) descriptors of images, float16 or float32, one after the other.
        texts: (T, D) descriptors of texts.
        device: where the first pass is made.
    """
    import torch

    longest = np.linalg.norm(texts.astype(np.float64), axis=1).max(initial=0.0)
    found = []
    with torch.inference_mode():
        columns = torch.from_numpy(np.array(texts.T, order="C")).to(device)
        for block in blocks:
            rows = np.array(block, np.float32)
            lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
            # Twice what a sum of D products of float32 can be off by, in any order.
            slack = 2.2 * rows.shape[1] * 2.0**-24 * longest * lengths
            near = torch.from_numpy(rows).to(device) @ columns
            best = near.amax(1)
            least = best.double() - torch.from_numpy(slack).to(device)
            # All texts are as near to a row of zeros; not a number is near to nothing, and stays what it is.
            candidates = (near >= least[:, None]) & torch.from_numpy(lengths > 0).to(device)[:, None]
            row, text = (places.cpu().numpy() for places in candidates.nonzero(as_tuple=True))
            found.append(_exact(rows, texts, row, text, best.cpu().numpy()))
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _exact(rows: Floats, texts: Floats, row: Places, text: Places, best: Scores) -> Scores:
    """Return the largest exact product of each row with its candidates, ``best`` where it has none."""
    step = max(1, _AT_ONCE // max(rows.shape[1], 1))
    out = np.where(np.isin(np.arange(len(rows)), row), -np.inf, best.astype(np.float64))
    for start in range(0, len(row), step):
        one, two = row[start : start + step], text[start : start + step]
        # A sum along the rows of an array is the same however many rows there are.
        np.maximum.at(out, one, (rows[one].astype(np.float64) * texts[two].astype(np.float64)).sum(axis=1))
    return out.astype(np.float32)


def score_store(
    store: DescriptorStore, texts: Floats, folder: Path, *, device: str = "cpu", share: Share = _ALL
) -> list[str]:
    """Write the scores of a store into ``<folder>/<number>.npy``, a file a shard; those that are there stay.

    Returns:
        the sources of the shards that are not scored yet: others of a share have them.

    Raises:
        OpenIliasError: the texts have another dimension, or a similarity is not finite.
    """
    if texts.shape[1] != store.dims:
        raise OpenIliasError(
            f"The texts have {texts.shape[1]} dimensions, the images {store.dims}.",
            where=store.folder,
            fix="Give the store of the same model, not adapted.",
        )
    todo = [pair for pair in share.take(list(enumerate(store.shards))) if not _is_scored(folder, *pair)]
    with progress("score", total=sum(shard.rows for _, shard in todo), unit="images") as step:
        for number, shard in todo:
            scores = largest_similarities(_counted(shard, step), texts, device=device)
            if not np.isfinite(scores).all():
                raise OpenIliasError(
                    "A similarity is not finite.", where=shard.where, fix="ilias data verify the store; make it again."
                )
            path = scores_file(folder, number)
            with told_if_full(path), atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, scores)
    return [shard.source for number, shard in enumerate(store.shards) if not _is_scored(folder, number, shard)]


def scores_file(folder: Path, number: int) -> Path:
    """Return the file of the scores of a shard."""
    return folder / f"{number:05d}.npy"


def read_scores(folder: Path, number: int, shard: Shard) -> Scores:
    """Return (rows,) of a shard, memory-mapped.

    Raises:
        OpenIliasError: they are not there, or are those of another shard.
    """
    path = scores_file(folder, number)
    try:
        scores: Scores = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise OpenIliasError(f"These scores cannot be read: {error}.", where=path, fix="Remove the file.") from None
    if scores.shape != (shard.rows,) or scores.dtype != np.float32:
        raise OpenIliasError(f"Expected {shard.rows} scores.", where=path, fix="Remove the file.")
    return scores


def _is_scored(folder: Path, number: int, shard: Shard) -> bool:
    if not scores_file(folder, number).exists():
        return False
    read_scores(folder, number, shard)
    return True


def _counted(shard: Shard, step: Any) -> Iterator[npt.NDArray[Any]]:
    for block in shard.blocks(_ROWS):
        yield block
        step(len(block))


def names_of(stores: Sequence[DescriptorStore]) -> list[str]:
    """Return the sources that all stores have, in order.

    Raises:
        OpenIliasError: they differ, or one stands twice.
    """
    named = [[shard.source for shard in store.shards] for store in stores]
    for store, names in zip(stores, named, strict=True):
        differing = sorted(set(names) ^ set(named[0]))
        if differing or len(set(names)) < len(names):
            what = ", ".join(differing[:3]) or "one stands twice"
            raise OpenIliasError(
                f"This store has other shards than {stores[0].folder}: {what}.",
                where=store.folder,
                fix="Describe the same distractors with all models, in the same kind of store.",
            )
    return sorted(named[0])
