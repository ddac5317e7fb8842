"""The descriptor store: a folder of shards, each whole or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import atomic_path, read_json, sha256_of, write_json
from openilias.core.ids import PARTITIONS, Partition
from openilias.core.manifests import read_manifest

KIND = "descriptor store"
MANIFEST = "manifest.json"
FILES = r"\d{5,}\.(npy|ids\.parquet|json)"


SkipStatus = Literal["unreadable", "unusable", "timeout", "crash"]
"""Why a sample was passed over: its bytes are no image; its tar member cannot be used; it took too long to read; the
process that read it died. The first, third and fourth can be tried again."""


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be described, and why."""

    id: str
    reason: str
    status: SkipStatus = "unreadable"


@dataclass(frozen=True)
class StoreShard:
    """One finished shard."""

    folder: Path
    number: int
    source: str
    rows: int
    sha256: str
    ids_sha256: str
    skipped: tuple[Skipped, ...]

    def verify(self) -> None:
        """Compare the files with the digests of the marker.

        Raises:
            OpenIliasError: they differ, or a file is missing.
        """
        for ending, digest in ((".npy", self.sha256), (".ids.parquet", self.ids_sha256)):
            path = self.folder / f"{self.number:05d}{ending}"
            if not path.is_file() or sha256_of(path) != digest:
                raise OpenIliasError("This file is missing, or not as it was written.", where=path, fix=_AGAIN)

    def descriptors(self) -> npt.NDArray[np.floating]:
        """Return (rows, D), memory-mapped.

        Raises:
            OpenIliasError: the file is missing, truncated, or not what its marker says.
        """
        path = self.folder / f"{self.number:05d}.npy"
        try:
            array: npt.NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise OpenIliasError(f"These descriptors cannot be read: {error}.", where=path, fix=_AGAIN) from None
        if array.ndim != 2 or len(array) != self.rows or array.dtype not in (np.float16, np.float32):
            raise OpenIliasError(
                f"Expected {self.rows} rows of float16 or float32, found {array.shape} {array.dtype}.",
                where=path,
                fix=_AGAIN,
            )
        return array

    def ids(self) -> list[str]:
        """Return the ids of the rows.

        Raises:
            OpenIliasError: the file is missing or broken, or its length is not that of the shard.
        """
        path = self.folder / f"{self.number:05d}.ids.parquet"
        try:
            ids: list[str] = pq.read_table(path, columns=["id"])["id"].to_pylist()
        except (OSError, KeyError, pa.ArrowException) as error:
            raise OpenIliasError(f"These ids cannot be read: {error}.", where=path, fix=_AGAIN) from None
        if len(ids) != self.rows:
            raise OpenIliasError(f"Expected {self.rows} ids, found {len(ids)}.", where=path, fix=_AGAIN)
        return ids


_AGAIN = "Run the extraction again with --overwrite: only shards that are damaged are redone."


def write_shard(
    folder: Path,
    number: int,
    *,
    source: str,
    ids: Sequence[str],
    descriptors: npt.NDArray[np.floating],
    skipped: Sequence[Skipped],
) -> None:
    """Write one shard, its marker last."""
    stem = folder / f"{number:05d}"
    array_path = stem.with_name(f"{stem.name}.npy")
    with atomic_path(array_path) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.ascontiguousarray(descriptors), allow_pickle=False)
    ids_path = stem.with_name(f"{stem.name}.ids.parquet")
    with atomic_path(ids_path) as temporary:
        pq.write_table(pa.table({"id": pa.array(list(ids), pa.string())}), temporary)
    write_json(
        stem.with_name(f"{stem.name}.json"),
        {
            "rows": len(ids),
            "sha256": sha256_of(array_path),
            "ids_sha256": sha256_of(ids_path),
            "source": source,
            "skipped": [asdict(item) for item in skipped],
        },
    )


def read_marker(folder: Path, number: int) -> StoreShard | None:
    """Return a finished shard, None if it is not finished.

    Raises:
        OpenIliasError: the marker is broken.
    """
    path = folder / f"{number:05d}.json"
    if not path.exists():
        return None
    marker = read_json(path)
    try:
        skipped = tuple(Skipped(**entry) for entry in marker["skipped"])
        return StoreShard(
            folder,
            number,
            marker["source"],
            int(marker["rows"]),
            marker["sha256"],
            marker["ids_sha256"],
            skipped,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise OpenIliasError(f"This done marker is broken: {error!r}.", where=path, fix=_AGAIN) from None


@dataclass(frozen=True)
class DescriptorStore:
    """An opened store, all of whose shards are there.

    Attributes:
        folder: where it is.
        manifest: who made it, from what.
        shards: in the order of the source.
    """

    folder: Path
    manifest: Mapping[str, Any]
    shards: tuple[StoreShard, ...]

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
    def rows(self) -> int:
        """How many descriptors it holds."""
        return sum(shard.rows for shard in self.shards)

    @cached_property
    def skipped(self) -> tuple[Skipped, ...]:
        """Samples that could not be described."""
        return tuple(item for shard in self.shards for item in shard.skipped)

    def origin(self) -> dict[str, Any]:
        """What must agree between stores that are compared: all but what belongs to the partition itself."""
        own = ("partition", "contents", "skip_unreadable")
        return {key: value for key, value in self.manifest["made_from"].items() if key not in own}


def open_store(folder: Path) -> DescriptorStore:
    """Open a finished store.

    Raises:
        OpenIliasError: it is no store, or shards are missing: a part is never taken for the whole.
    """
    manifest = read_manifest(Path(folder) / MANIFEST, kind=KIND)
    sources = manifest.get("sources")
    if not isinstance(sources, list) or manifest["made_from"].get("partition") not in PARTITIONS:
        raise OpenIliasError("This manifest is incomplete.", where=folder, fix="Extract again with --overwrite.")
    found = [read_marker(Path(folder), number) for number in range(len(sources))]
    missing = [source for source, shard in zip(sources, found, strict=True) if shard is None]
    if missing:
        raise OpenIliasError(
            f"{len(missing)} of {len(sources)} shards of this store are not finished: {first_few(missing)}.",
            where=folder,
            fix="Run the same ilias extract again: it continues where it was.",
        )
    return DescriptorStore(Path(folder), manifest, tuple(shard for shard in found if shard is not None))
