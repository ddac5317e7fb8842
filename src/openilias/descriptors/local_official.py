"""The local descriptors of AMES' code: HDF5 ``features`` (N, topk, 5 + D) float32, and a list of its images in order.

Each row is y, x, scale, padding (1 = there is none), weight, descriptor. What the file does not say, the size of the
images, is given, and whether positions are shares of the image, as those of DINOv2, or pixels, as those of CVNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, sha256_of
from openilias.core.fingerprints import fingerprint_lines
from openilias.core.ids import Partition
from openilias.core.progress import progress
from openilias.core.shards import Share
from openilias.descriptors.local_store import FILES, KIND, LocalStore, finished_local_shard, open_local_store
from openilias.descriptors.local_writing import writing_local_shard
from openilias.descriptors.making import making
from openilias.descriptors.official import dataset, reading
from openilias.descriptors.store import told_if_full
from openilias.models.local_features import SCALE, WEIGHT, LocalFeatures, X, Y

_COLUMNS, _PADDING = 5, 3
_UNIT = 1e-2  # lengths that differ less from 1 are left as they are
_BLOCK = 64  # images at a time
FORMAT = "AMES HDF5"


def read_ames_features(
    path: Path,
    ids: Sequence[str],
    partition: Partition,
    out: Path,
    *,
    side: int = 770,
    pixels: bool = False,
    overwrite: bool = False,
) -> LocalStore:
    """Make a store of a file of AMES' code; does nothing if it was made from the same.

    Args:
        path: the file.
        ids: of its images, in its order.
        partition: that they belong to.
        out: folder of the store.
        side: height and width of the images that were described, in pixels: tolerances are in pixels of them.
        pixels: positions are pixels, as those of CVNet; by default they are shares of the image, as those of DINOv2.
        overwrite: replace a store of something else.

    Raises:
        OpenIliasError: no such file, another number of ids, numbers that are not finite, positions that are not what
            they are said to be, or ``out`` is in the way.
    """
    if len(set(ids)) < len(ids):
        raise OpenIliasError("An id stands twice in the list.", where=path, fix="Correct the list.")
    with reading(path) as file:
        features = dataset(file, "features", path)
        if features.ndim != 3 or features.shape[2] <= _COLUMNS or features.shape[0] != len(ids):
            raise OpenIliasError(
                f"Expected features ({len(ids)}, topk, {_COLUMNS} + D), found {features.shape}.",
                where=path,
                fix="Give the list of the images of this file, in its order.",
            )
        dims = int(features.shape[2]) - _COLUMNS
        made_from = {
            "local": {"format": FORMAT},
            "partition": partition,
            "file": sha256_of(path),
            "ids": fingerprint_lines(ids),
            "side": side,
            "pixels": pixels,
        }
        with making(
            out, made_from=made_from, sources=[path.name], share=Share(), overwrite=overwrite, kind=KIND, ours=FILES,
            dims=dims, dtype="float32", weights_from=FORMAT, weight_from="detector",
        ):  # fmt: skip
            if finished_local_shard(out, 0, check=overwrite) is None:
                _copy(features, path, ids, out, dims, side, pixels=pixels)
    return open_local_store(out)


def _copy(features: Any, path: Path, ids: Sequence[str], out: Path, dims: int, side: int, *, pixels: bool) -> None:
    with (
        writing_local_shard(out, 0, source=path.name, dims=dims, dtype=np.float32, skipped=[]) as writer,
        progress("read", total=len(ids), unit="images") as step,
    ):
        for start in range(0, len(ids), _BLOCK):
            for item, rows in zip(ids[start : start + _BLOCK], features[start : start + _BLOCK], strict=True):
                try:
                    writer.add(item, _features(rows, side, pixels=pixels))
                except OpenIliasError as error:
                    error.where = error.where or f"{path}, {item}"
                    raise
                step()


def _features(rows: npt.NDArray[np.float32], side: int, *, pixels: bool) -> LocalFeatures:
    """Return the descriptors of one image, of unit length: without a detector they are written as they come.

    Raises:
        OpenIliasError: padding that is neither 0 nor 1, a descriptor of length 0, positions outside the image.
    """
    padding = rows[:, _PADDING]
    if not np.isin(padding, (0, 1)).all():
        raise OpenIliasError("The fourth column is neither 0 nor 1: these are not the local descriptors of AMES' code.")
    here = rows[padding == 0]
    here = here[np.argsort(-here[:, 4], kind="stable")]
    geometry = np.ascontiguousarray(here[:, [0, 1, 2, 4]], np.float32)
    if pixels:
        geometry[:, :2] /= side
    outside = geometry[:, :2][(geometry[:, :2] < 0) | (geometry[:, :2] > 1)]
    if len(outside):
        raise OpenIliasError(
            f"A position is {outside[0] * (side if pixels else 1):g}, outside the image.",
            fix="Give a larger --side." if pixels else "Give --pixels and their largest --side, if they are pixels.",
        )
    descriptors = here[:, _COLUMNS:]
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise OpenIliasError("A descriptor has length 0.")
    unit = np.abs(lengths - 1) <= _UNIT
    return LocalFeatures(np.where(unit, descriptors, descriptors / lengths), geometry, side, side)


def write_ames_features(store: LocalStore, path: Path, ids: Sequence[str], *, most: int = 700) -> None:
    """Write a file of AMES' code from a store.

    Args:
        store: of numbers.
        path: of the file.
        ids: the images, in the order of the file.
        most: descriptors of an image; shorter ones are padded.

    Raises:
        OpenIliasError: the store is packed, images are not in it, or the disk is full.
    """
    import h5py

    if store.bits is not None:
        raise OpenIliasError("AMES' files hold numbers, no bits.", where=store.folder, fix="Give the store before.")
    places = store.find(ids)
    missing = [ids[row] for row in np.flatnonzero(places[:, 0] < 0).tolist()]
    if missing:
        raise OpenIliasError(
            f"{len(missing)} images are not in the store: {first_few(missing)}.",
            where=store.folder,
            fix="Check the list.",
        )
    with told_if_full(path), atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        made = file.create_dataset("features", (len(ids), most, _COLUMNS + store.dims), np.float32)
        with progress("write", total=len(ids), unit="images") as step:
            for row, (shard, place) in enumerate(places.tolist()):
                found = store.shards[shard].take(place, most)
                block = np.zeros((most, _COLUMNS + store.dims), np.float32)
                block[len(found) :, 3] = 1
                block[: len(found), :3] = found.geometry[:, [Y, X, SCALE]]
                block[: len(found), 4] = found.geometry[:, WEIGHT]
                block[: len(found), _COLUMNS:] = found.descriptors
                made[row] = block
                step()
