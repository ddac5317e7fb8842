"""What there is of an ingest: counts of statuses, and the list of ids when all shards are there."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openilias.build.ingest.hosts import HostCounts
from openilias.build.ingest.plan import Plan, read_plan
from openilias.build.ingest.settings import KIND, MANIFEST
from openilias.build.ingest.shards import Places
from openilias.build.ingest.statuses import STATUSES
from openilias.build.stored import STORED
from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, remove_leftovers_of
from openilias.core.manifests import read_manifest
from openilias.data.ilias import DISTRACTORS

PLANNED = "plan"  # the folder of the plan


@dataclass(frozen=True)
class Ingested:
    """What there is of an ingest, and what the last run did.

    Attributes:
        folder: the set.
        shards: planned.
        made: of them, complete.
        begun: of them, being made or cut off.
        elsewhere: of them, being made by another process at the moment.
        rows: planned: photographs, and records that cannot be used.
        videos: records that were passed over.
        statuses: status -> rows of the shards that are complete, in the order of ``STATUSES``.
        bytes: of the images that are stored in them.
        asked: rows that this run has finished.
        seconds: that it took.
        hosts: what this run asked of them.
        listed: whether all shards are there and the list of ids is written.
    """

    folder: Path
    shards: int
    made: int
    begun: int
    rows: int
    videos: int
    statuses: dict[str, int]
    bytes: int
    elsewhere: int = 0
    asked: int = 0
    seconds: float = 0.0
    hosts: dict[str, HostCounts] = field(default_factory=dict)
    listed: bool = False

    @property
    def whole(self) -> bool:
        """Whether all shards are there."""
        return self.made == self.shards and not self.begun

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self) | {"folder": str(self.folder), "whole": self.whole}


def list_of_ids(root: Path) -> Path:
    """Return the list of ids of a set."""
    return root / "image_ids" / DISTRACTORS


def status_of(root: Path) -> Ingested:
    """Say what there is of an ingest.

    Raises:
        OpenIliasError: there is none, or a table of it is damaged.
    """
    state = root / "build" / "ingest"
    manifest = read_manifest(state / MANIFEST, kind=KIND)
    if not (state / PLANNED).is_dir():
        raise OpenIliasError("This ingest was cut off while it read its tables.", where=state, fix="Run it again.")
    places = Places(root, str(manifest["made_from"]["settings"]["name"]))
    return count_up(places, read_plan(state / PLANNED))


def count_up(places: Places, plan: Plan) -> Ingested:
    """Count what is in the tables of the shards; two columns of each are read."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    statuses: Counter[str] = Counter()
    stored = made = 0
    for shard in plan.shards:
        if not places.is_made(shard):
            continue
        made += 1
        try:
            table = pq.read_table(places.rows(shard), columns=["status", "bytes"])
        except (pa.ArrowException, OSError) as error:
            raise OpenIliasError(
                f"This table cannot be read: {error}.", where=places.rows(shard), fix="Remove it and its tar."
            ) from None
        for one in pc.value_counts(table.column("status")).to_pylist():
            statuses[one["values"]] += one["counts"]
        stored += pc.sum(table.column("bytes")).as_py() or 0
    ordered = {status: statuses[status] for status in STATUSES if statuses[status]}
    return Ingested(
        folder=places.root,
        shards=len(plan.shards),
        made=made,
        begun=sum(places.is_begun(shard) for shard in plan.shards),
        rows=plan.rows,
        videos=plan.videos,
        statuses=ordered,
        bytes=stored,
        listed=list_of_ids(places.root).is_file(),
    )


def write_ids(places: Places, plan: Plan) -> None:
    """Write the ids of all that is stored, ``<shard>.tar/<key>``, in the order of the shards; a batch is held.

    Nobody else may be doing the same.
    """
    target = list_of_ids(places.root)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers_of(target)
    with (
        atomic_path(target) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
    ):
        for shard in plan.shards:
            tar = places.tar(shard).name
            for ids in _stored_ids(places.rows(shard)):
                packed.write("".join(f"{tar}/{name}\n" for name in ids).encode())


def _stored_ids(table: Path) -> Iterator[list[str]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(10_000, columns=["id", "status"]):
            yield batch.filter(pc.equal(batch.column("status"), STORED)).column("id").to_pylist()
