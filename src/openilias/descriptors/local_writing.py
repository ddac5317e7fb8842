"""Writing a shard of local descriptors, image by image: what is held does not grow with the shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, sha256_of, write_json
from openilias.descriptors.local_store import ARRAYS
from openilias.descriptors.store import Skipped, told_if_full
from openilias.models.local_features import LocalFeatures

_HEADER = 128  # bytes of a .npy header, which is written before it is known how many rows come


class LocalWriter:
    """Writes one shard image by image; use :func:`writing_local_shard`."""

    def __init__(self, paths: Mapping[str, Path], dims: int, dtype: np.dtype[Any]) -> None:
        """Open the files of the arrays."""
        self._dims, self._dtype = dims, dtype
        self._files = {name: paths[name].open("wb") for name in ("desc", "geometry")}
        self._paths = paths
        for file in self._files.values():
            file.write(b"\0" * _HEADER)
        self._ends: list[int] = [0]
        self._ids: list[str] = []
        self._sizes: list[tuple[int, int]] = []

    def add(self, item: str, features: LocalFeatures) -> None:
        """Add an image.

        Raises:
            OpenIliasError: its descriptors have other dimensions than those of the store.
        """
        if features.descriptors.shape[1] != self._dims:
            raise OpenIliasError(
                f"Local descriptors of {features.descriptors.shape[1]} numbers, expected {self._dims}.", where=item
            )
        self._files["desc"].write(np.ascontiguousarray(features.descriptors, self._dtype).data)
        self._files["geometry"].write(np.ascontiguousarray(features.geometry, np.float32).data)
        self._ends.append(self._ends[-1] + len(features))
        self._ids.append(item)
        self._sizes.append((features.height, features.width))

    def finish(self) -> tuple[int, int]:
        """Write what is left; return how many images and descriptors there are."""
        count = self._ends[-1]
        for name, width, dtype in (("desc", self._dims, self._dtype), ("geometry", 4, np.dtype(np.float32))):
            self._files[name].seek(0)
            self._files[name].write(_header((count, width), dtype))
            self._files[name].close()
        with self._paths["offsets"].open("wb") as file:
            np.save(file, np.array(self._ends, np.int64))
        sizes = np.array(self._sizes, np.int32).reshape(-1, 2)
        ids = pa.array(self._ids, pa.string())
        pq.write_table(pa.table({"id": ids, "height": sizes[:, 0], "width": sizes[:, 1]}), self._paths["ids"])
        return len(self._ids), count

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def _header(shape: tuple[int, int], dtype: np.dtype[Any]) -> bytes:
    """Return a .npy header of a fixed length."""
    text = f"{{'descr': {np.lib.format.dtype_to_descr(dtype)!r}, 'fortran_order': False, 'shape': {shape}, }}"
    start = np.lib.format.magic(1, 0) + (_HEADER - 10).to_bytes(2, "little")
    return start + text.ljust(_HEADER - 11).encode("ascii") + b"\n"


@contextmanager
def writing_local_shard(
    folder: Path, number: int, *, source: str, dims: int, dtype: npt.DTypeLike, skipped: list[Skipped]
) -> Iterator[LocalWriter]:
    """Write one shard in the block, its marker last; if that fails, nothing of it is left, or what was there before.

    Args:
        folder: the store.
        number: of the shard.
        source: what the marker says it was made of.
        dims: numbers, or bytes of packed bits, of a descriptor.
        dtype: float16, float32 or uint8.
        skipped: what could not be described; read at the end.

    Raises:
        OpenIliasError: the disk is full, or cannot be written.
    """
    names = {**{name: f"{number:05d}.{name}.npy" for name in ARRAYS}, "ids": f"{number:05d}.ids.parquet"}
    marker = folder / f"{number:05d}.json"
    with told_if_full(folder / names["desc"]):
        with ExitStack() as stack:
            paths = {name: stack.enter_context(atomic_path(folder / names[name])) for name in (*ARRAYS, "ids")}
            writer = LocalWriter(paths, dims, np.dtype(dtype))
            stack.callback(writer.close)
            yield writer
            images, count = writer.finish()
            # A marker stands only beside the files it was written for; what was there before is kept up to here.
            marker.unlink(missing_ok=True)
        try:
            digests = {name.split(".", 1)[1]: sha256_of(folder / name) for name in names.values()}
            write_json(
                marker,
                {
                    "images": images,
                    "descriptors": count,
                    "sha256": digests,
                    "source": source,
                    "skipped": [asdict(item) for item in skipped],
                },
            )
        except BaseException:
            for name in names.values():
                (folder / name).unlink(missing_ok=True)
            raise


def write_local_shard(
    folder: Path,
    number: int,
    *,
    source: str,
    images: Iterable[tuple[str, LocalFeatures]],
    dims: int,
    dtype: npt.DTypeLike,
    skipped: Sequence[Skipped] = (),
) -> None:
    """Write one shard, as :func:`writing_local_shard`, of ids with their descriptors."""
    with writing_local_shard(folder, number, source=source, dims=dims, dtype=dtype, skipped=list(skipped)) as writer:
        for item, features in images:
            writer.add(item, features)
