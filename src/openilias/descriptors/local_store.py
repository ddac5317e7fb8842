"""The store of local descriptors: a folder of shards like that of global ones, a variable number for each image.

Of each shard ``NNNNN.offsets.npy`` (N + 1,) int64 says which rows are those of an image, ``NNNNN.desc.npy`` holds
(M, D) float16 or float32, or (M, bits / 8) uint8, ``NNNNN.geometry.npy`` (M, 4) float32 (y and x in [0, 1], scale,
weight), and ``NNNNN.ids.parquet`` the id, height and width of each image. ``NNNNN.json``, written last, says that it is
whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_json, sha256_of
from openilias.core.ids import PARTITIONS, Partition
from openilias.core.manifests import read_manifest
from openilias.descriptors.store import MANIFEST, Skipped
from openilias.models.local_features import LocalFeatures

KIND = "local descriptor store"
FILES = r"\d{5,}\.((offsets|desc|geometry)\.npy|ids\.parquet|json)"
ARRAYS = ("desc", "geometry", "offsets")
"""Files of numbers of a shard."""
_AGAIN = "Make the store again with --overwrite."

Array = npt.NDArray[Any]


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

    def verify(self) -> None:
        """Compare the files with the digests of the marker.

        Raises:
            OpenIliasError: they differ, or a file is missing.
        """
        for name, digest in self.digests.items():
            path = self.path(name)
            if not path.is_file() or sha256_of(path) != digest:
                raise OpenIliasError("This file is missing, or not as it was written.", where=path, fix=_AGAIN)

    def _array(self, name: str, shape: tuple[int | None, ...]) -> Array:
        path = self.path(f"{name}.npy")
        try:
            array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise OpenIliasError(f"This file cannot be read: {error}.", where=path, fix=_AGAIN) from None
        if array.ndim != len(shape) or any(
            want not in (None, has) for want, has in zip(shape, array.shape, strict=True)
        ):
            raise OpenIliasError(f"Expected {shape}, found {array.shape}.", where=path, fix=_AGAIN)
        return array

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """(N + 1,) int64: the descriptors of image i are [offsets[i], offsets[i + 1]); memory-mapped.

        Raises:
            OpenIliasError: the file is missing or damaged.
        """
        return self._array("offsets", (self.images + 1,))

    @cached_property
    def descriptors(self) -> Array:
        """(M, D) float16 or float32, or (M, bits / 8) uint8; memory-mapped.

        Raises:
            OpenIliasError: the file is missing or damaged.
        """
        return self._array("desc", (self.count, None))

    @cached_property
    def geometry(self) -> npt.NDArray[np.float32]:
        """(M, 4) float32: y, x, scale, weight; memory-mapped.

        Raises:
            OpenIliasError: the file is missing or damaged.
        """
        return self._array("geometry", (self.count, 4))

    def _images(self, *columns: str) -> pa.Table:
        path = self.path("ids.parquet")
        try:
            table = pq.read_table(path, columns=list(columns))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise OpenIliasError(f"These ids cannot be read: {error}.", where=path, fix=_AGAIN) from None
        if len(table) != self.images:
            raise OpenIliasError(f"Expected {self.images} ids, found {len(table)}.", where=path, fix=_AGAIN)
        return table

    def id_array(self) -> Any:
        """Return the ids of the images as a pyarrow.ChunkedArray of strings; they are read anew, and not held.

        Raises:
            OpenIliasError: the file is missing or damaged.
        """
        return self._images("id")["id"]

    @cached_property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) height and width of the images that were described, in pixels."""
        table = self._images("height", "width")
        return np.stack([table[name].to_numpy() for name in ("height", "width")], axis=1).astype(np.int32)

    def take(self, image: int, most: int | None = None) -> LocalFeatures:
        """Return the descriptors of an image, the ``most`` of largest weight; only these are read.

        Raises:
            OpenIliasError: the shard is damaged.
        """
        start, end = (int(value) for value in self.offsets[image : image + 2])
        if most is not None:
            end = min(end, start + most)
        if not 0 <= start <= end <= self.count:
            raise OpenIliasError("These offsets are damaged.", where=self.path("offsets.npy"), fix=_AGAIN)
        height, width = self.sizes[image]
        return LocalFeatures(
            np.asarray(self.descriptors[start:end]), np.asarray(self.geometry[start:end]), int(height), int(width)
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

    def find(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return (n, 2) the shard and the place in it of each image, -1 where it is not here."""
        found = np.full((len(ids), 2), -1, np.int64)
        wanted = pa.array(ids, pa.string())
        for number, shard in enumerate(self.shards):
            places = pc.index_in(wanted, value_set=shard.id_array().combine_chunks())
            here = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
            found[here, 0] = number
            found[here, 1] = places.drop_null().to_numpy()
        return found


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
        raise OpenIliasError(f"This done marker is broken: {error!r}.", where=path, fix=_AGAIN) from None


def open_local_store(path: Path) -> LocalStore:
    """Open a finished store.

    Raises:
        OpenIliasError: it is no store of local descriptors, or shards are missing: a part is never taken for the whole.
    """
    path = Path(path)
    manifest = read_manifest(path / MANIFEST, kind=KIND)
    sources = manifest.get("sources")
    if not isinstance(sources, list) or manifest["made_from"].get("partition") not in PARTITIONS:
        raise OpenIliasError("This manifest is incomplete.", where=path, fix=_AGAIN)
    found = [read_local_marker(path, number) for number in range(len(sources))]
    missing = [source for source, shard in zip(sources, found, strict=True) if shard is None]
    if missing:
        raise OpenIliasError(
            f"{len(missing)} of {len(sources)} shards of this store are not finished: {first_few(missing)}.",
            where=path,
            fix="Run the command that makes it again: it continues where it was.",
        )
    return LocalStore(path, manifest, tuple(shard for shard in found if shard is not None))
