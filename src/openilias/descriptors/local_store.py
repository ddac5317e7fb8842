"""The store of local descriptors: a folder of shards like that of global ones, a variable number for each image.

Of each shard ``NNNNN.offsets.npy`` (N + 1,) int64 says which rows are those of an image, ``NNNNN.desc.npy`` holds
(M, D) float16 or float32, or (M, bits / 8) uint8, ``NNNNN.geometry.npy`` (M, 4) float32 (y and x in [0, 1], scale,
weight), and ``NNNNN.ids.parquet`` the id, height and width of each image. ``NNNNN.json``, written last, says that it is
whole.

Opening a store reads its markers, and nothing that grows with its images; these are found and read shard by shard.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_json, sha256_of
from openilias.core.ids import PARTITIONS, Partition
from openilias.core.manifests import read_manifest
from openilias.descriptors.local_ids import locate, read_images, sizes_of
from openilias.descriptors.local_reading import AGAIN, RowFile, mapped
from openilias.descriptors.store import MANIFEST, Skipped
from openilias.models.local_features import LocalFeatures

KIND = "local descriptor store"
FILES = r"\d{5,}\.((offsets|desc|geometry)\.npy|ids\.parquet|json)"
ARRAYS = ("desc", "geometry", "offsets")
"""Files of numbers of a shard."""

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_NUMBERS = {"offsets": (np.int64,), "desc": (np.float16, np.float32, np.uint8), "geometry": (np.float32,)}
_SIZED: deque[weakref.ref[LocalShard]] = deque()
_MOST_SIZED = 64  # shards whose sizes of images are held


class Found(NamedTuple):
    """Where images are in a store; -1 of those that are not in it.

    Attributes:
        places: (n, 2) shard, and place in it.
        rows: (n, 2) first descriptor in the shard, and the one after the last.
        sizes: (n, 2) height and width, in pixels.
    """

    places: Integers
    rows: Integers
    sizes: Integers


@dataclass(frozen=True)
class LocalShard:
    """One finished shard.

    Attributes:
        folder: of the store.
        number: of the shard.
        source: what it was made of.
        images: how many, N.
        count: how many descriptors, M.
        digests: SHA-256 of each of its files.
        skipped: images that could not be described.
    """

    folder: Path
    number: int
    source: str
    images: int
    count: int
    digests: Mapping[str, str]
    skipped: tuple[Skipped, ...]

    def path(self, name: str) -> Path:
        """Return one of its files: ``desc.npy``, ``geometry.npy``, ``offsets.npy``, ``ids.parquet``."""
        return self.folder / f"{self.number:05d}.{name}"

    def verify(self, *, geometry: bool = True) -> None:
        """Compare the files with the digests of the marker.

        Args:
            geometry: that of the descriptors too.

        Raises:
            OpenIliasError: they differ, or a file is missing.
        """
        for name, digest in self.digests.items():
            if name == "geometry.npy" and not geometry:
                continue
            path = self.path(name)
            if not path.is_file() or sha256_of(path) != digest:
                raise OpenIliasError("This file is missing, or not as it was written.", where=path, fix=AGAIN)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _checked(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        shapes = {"offsets": (self.images + 1,), "desc": (self.count, *shape[1:2]), "geometry": (self.count, 4)}
        if shape != shapes[name] or dtype not in _NUMBERS[name]:
            numbers = " or ".join(kind.__name__ for kind in _NUMBERS[name])
            raise OpenIliasError(
                f"Expected {shapes[name]} {numbers}, found {shape} {dtype}.",
                where=self.path(f"{name}.npy"),
                fix=AGAIN,
            )

    def _mapped(self, name: str) -> Array:
        array = mapped(self.path(f"{name}.npy"))
        self._checked(name, array.shape, array.dtype)
        return array

    def _opened(self, name: str) -> RowFile:
        file = RowFile(self.path(f"{name}.npy"))
        self._checked(name, file.shape, file.dtype)
        return file

    @property
    def offsets(self) -> Integers:
        """(N + 1,) int64: the descriptors of image i are [offsets[i], offsets[i + 1]); memory-mapped anew.

        Raises:
            OpenIliasError: the file is missing or damaged.
        """
        return self._mapped("offsets")

    @property
    def descriptors(self) -> Array:
        """(M, D) float16 or float32, or (M, bits / 8) uint8; memory-mapped anew.

        Raises:
            OpenIliasError: the file is missing or damaged.
        """
        return self._mapped("desc")

    @property
    def geometry(self) -> npt.NDArray[np.float32]:
        """(M, 4) float32: y, x, scale, weight; memory-mapped anew.

        Raises:
            OpenIliasError: the file is missing or damaged.
        """
        return self._mapped("geometry")

    @cached_property
    def offset_file(self) -> RowFile:
        """The file of the offsets, for reading some of them."""
        return self._opened("offsets")

    @cached_property
    def descriptor_file(self) -> RowFile:
        """The file of the descriptors, for reading those of some images."""
        return self._opened("desc")

    @cached_property
    def geometry_file(self) -> RowFile:
        """The file of the geometry, likewise."""
        return self._opened("geometry")

    def id_array(self) -> Any:
        """Return the ids of the images as a pyarrow.ChunkedArray of strings; they are read anew, and not held.

        Raises:
            OpenIliasError: the file is missing or damaged.
        """
        return read_images(self.path("ids.parquet"), self.images, "id")["id"]

    @cached_property
    def sizes(self) -> Integers:
        """(N, 2) height and width of the images that were described, in pixels; held for the shards asked last."""
        _SIZED.append(weakref.ref(self))
        for _ in range(len(_SIZED) - _MOST_SIZED):
            first = _SIZED.popleft()()
            if first is not None:
                first.__dict__.pop("sizes", None)
        return sizes_of(read_images(self.path("ids.parquet"), self.images, "height", "width"))

    def rows_of(self, images: Integers) -> Integers:
        """Return (n, 2) the first descriptor of each image, and the one after the last.

        Raises:
            OpenIliasError: the shard is damaged.
        """
        offsets = self.offsets
        rows = np.stack([offsets[images], offsets[images + 1]], axis=1)
        self._check_rows(rows)
        return rows

    def _check_rows(self, rows: Integers) -> None:
        if (rows[:, 0] < 0).any() or (rows[:, 0] > rows[:, 1]).any() or (rows[:, 1] > self.count).any():
            raise OpenIliasError("These offsets are damaged.", where=self.path("offsets.npy"), fix=AGAIN)

    def take(self, image: int, most: int | None = None) -> LocalFeatures:
        """Return the descriptors of an image, the ``most`` of largest weight; only these are read.

        Raises:
            OpenIliasError: the shard is damaged.
        """
        if not 0 <= image < self.images:
            raise IndexError(f"image {image} of {self.images}")
        rows = self.offset_file.rows(image, 2)
        self._check_rows(rows[None])
        start, end = rows.tolist()
        count = end - start if most is None else min(end - start, most)
        height, width = self.sizes[image]
        return LocalFeatures(
            self.descriptor_file.rows(start, count), self.geometry_file.rows(start, count), int(height), int(width)
        )


@dataclass(frozen=True)
class LocalStore:
    """An opened store, all of whose shards are there.

    Attributes:
        folder: where it is.
        manifest: who made it, from what; with ``dims``, and ``bits`` where descriptors are packed.
        shards: in the order of the source.
    """

    folder: Path
    manifest: Mapping[str, Any]
    shards: tuple[LocalShard, ...]

    @property
    def partition(self) -> Partition:
        """Which partition of the benchmark it describes."""
        partition: Partition = self.manifest["made_from"]["partition"]
        return partition

    @property
    def fingerprint(self) -> str:
        """Of what it was made from."""
        return str(self.manifest["fingerprint"])

    @property
    def bits(self) -> int | None:
        """How many bits a descriptor has, None if it is of numbers."""
        bits: int | None = self.manifest.get("bits")
        return bits

    @property
    def dims(self) -> int:
        """How many dimensions a descriptor has, or bits."""
        return int(self.manifest["dims"])

    @property
    def images(self) -> int:
        """How many images it holds."""
        return sum(shard.images for shard in self.shards)

    @property
    def count(self) -> int:
        """How many descriptors it holds."""
        return sum(shard.count for shard in self.shards)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images that could not be described."""
        return tuple(item for shard in self.shards for item in shard.skipped)

    def bytes_per_image(self) -> dict[str, float]:
        """Return what an image takes on average: its descriptors, and where they are."""
        images = max(self.images, 1)
        each = self.dims / 8 if self.bits else self.dims * np.dtype(self.manifest["dtype"]).itemsize
        return {"descriptors": self.count * each / images, "geometry": self.count * 16 / images}

    def origin(self) -> dict[str, Any]:
        """Return what must agree between stores that are compared: all but what belongs to the partition itself."""
        own = ("partition", "contents", "skip_unreadable", "most", "shortlist")
        return {key: value for key, value in self.manifest["made_from"].items() if key not in own}

    def find(self, ids: Sequence[str]) -> Integers:
        """Return (n, 2) the shard and the place in it of each image, -1 where it is not here."""
        return self.locate(ids).places

    def locate(self, ids: Sequence[str]) -> Found:
        """Find images, shard by shard; of an id that stands twice the first counts.

        Raises:
            OpenIliasError: a shard is damaged.
        """
        different = sorted(set(ids))
        found = Found(*(np.full((len(different), 2), -1, np.int64) for _ in range(3)))
        for number, shard in enumerate(self.shards):
            if not shard.images or not different:
                continue
            which, places, sizes = locate(shard.path("ids.parquet"), shard.images, different)
            new = found.places[which, 0] < 0
            which, places = which[new], places[new]
            if len(which):
                found.places[which] = np.stack([np.full_like(places, number), places], axis=1)
                found.rows[which], found.sizes[which] = shard.rows_of(places), sizes[new]
        row_of = {item: row for row, item in enumerate(different)}
        order = np.array([row_of[item] for item in ids], np.int64)
        return Found(*(values[order] for values in found))


def read_local_marker(folder: Path, number: int) -> LocalShard | None:
    """Return a finished shard, None if it is not finished.

    Raises:
        OpenIliasError: the marker is broken.
    """
    path = folder / f"{number:05d}.json"
    if not path.exists():
        return None
    marker = read_json(path)
    try:
        counts = [marker["images"], marker["descriptors"]]
        if any(type(value) is not int or value < 0 for value in counts):
            raise ValueError(f"{counts} images and descriptors")
        if set(marker["sha256"]) != {*(f"{name}.npy" for name in ARRAYS), "ids.parquet"}:
            raise ValueError(f"digests of {sorted(marker['sha256'])}")
        skipped = tuple(Skipped(**entry) for entry in marker["skipped"])
        return LocalShard(folder, number, marker["source"], counts[0], counts[1], marker["sha256"], skipped)
    except (KeyError, TypeError, ValueError) as error:
        raise OpenIliasError(f"This done marker is broken: {error!r}.", where=path, fix=AGAIN) from None


def finished_local_shard(folder: Path, number: int, *, check: bool) -> LocalShard | None:
    """Return a finished shard, None if it is not finished; with ``check`` a damaged one is taken for not finished."""
    try:
        shard = read_local_marker(folder, number)
        if shard is not None and check:
            shard.verify()
    except OpenIliasError:
        if not check:
            raise
        return None
    return shard


def open_local_store(path: Path) -> LocalStore:
    """Open a finished store.

    Raises:
        OpenIliasError: it is no store of local descriptors, or shards are missing: a part is never taken for the whole.
    """
    path = Path(path)
    manifest = read_manifest(path / MANIFEST, kind=KIND)
    sources = manifest.get("sources")
    if not isinstance(sources, list) or manifest["made_from"].get("partition") not in PARTITIONS:
        raise OpenIliasError("This manifest is incomplete.", where=path, fix=AGAIN)
    found = [read_local_marker(path, number) for number in range(len(sources))]
    missing = [source for source, shard in zip(sources, found, strict=True) if shard is None]
    if missing:
        raise OpenIliasError(
            f"{len(missing)} of {len(sources)} shards of this store are not finished: {first_few(missing)}.",
            where=path,
            fix="Run the command that makes it again: it continues where it was.",
        )
    return LocalStore(path, manifest, tuple(shard for shard in found if shard is not None))
