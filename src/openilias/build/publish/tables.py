"""The tables of rows and the attribution, a shard at a time; the attribution is joined from parts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.build.publish.checks import STATE, Checked
from openilias.build.publish.outputs import MARKERS, Done, Output
from openilias.build.publish.rows import ROWS_ENDING, attribution_header, batches_of, write_public
from openilias.build.publish.settings import PublishSettings
from openilias.build.publish.shards import bare_row
from openilias.build.stored import CORE_ROWS, ROWS, STORED
from openilias.core.files import atomic_path, read_bytes
from openilias.images.tar_index import scan_once
from openilias.images.tars import TarReader

ATTRIBUTION_PARTS = f"{MARKERS}/attribution"


@dataclass(frozen=True)
class TableJob:
    """A table to publish.

    Attributes:
        output: where.
        name: of the table below it.
        source: the table of the set, there or not.
        licence: of images whose rows state none.
        tar: the shard; None for the objects.
        kept: folder of the indexes of shards.
        images: of the objects: id -> file.
    """

    output: Output
    name: str
    source: Path
    licence: str | None
    tar: Path | None
    kept: Path
    images: tuple[tuple[str, Path], ...] = ()

    @property
    def part(self) -> Path:
        """Where its part of the attribution is kept."""
        return self.output.folder / ATTRIBUTION_PARTS / f"{self.name.rpartition('/')[2]}.csv.gz"


def table_jobs(checked: Checked, settings: PublishSettings, output: Output) -> list[TableJob]:
    """Return the tables to write, that of the objects first."""
    kept = checked.root / STATE / "tar_index"
    images = tuple(sorted((file.item, file.path) for file in checked.core.files if file.is_image))
    core = checked.root / ROWS / CORE_ROWS
    jobs = [TableJob(output, f"{ROWS}/{CORE_ROWS}", core, settings.licence, None, kept, images)]
    for shard in checked.benchmark.distractor_shards:
        if shard.tar is not None:
            name = f"{ROWS}/{shard.name.removesuffix('.tar')}{ROWS_ENDING}"
            jobs.append(TableJob(output, name, checked.root / name, None, shard.tar, kept))
    return jobs


def write_table(job: TableJob) -> Done:
    """Write a table and its part of the attribution, unless both are there."""
    if not job.part.is_file():
        job.output.marker(job.name).unlink(missing_ok=True)

    def make(path: Path) -> dict[str, Any]:
        only, lacking = _images(job)
        prefix = "" if job.tar is None else f"{job.tar.name}/"
        with atomic_path(job.part) as part:
            count = write_public(job.source, path, part, licence=job.licence, only=only, lacking=lacking, prefix=prefix)
        return {"rows": count}

    return job.output.write(job.name, make)


def _images(job: TableJob) -> tuple[frozenset[str], list[dict[str, Any]]]:
    """Return the ids of the published images, and rows of those that the table lacks."""
    known: set[str] = set()
    for batch in batches_of(job.source) if job.source.exists() else ():
        pairs = zip(batch.column("id").to_pylist(), batch.column("status").to_pylist(), strict=True)
        known.update(item for item, status in pairs if status == STORED)
    if job.tar is None:
        ids = frozenset(item for item, _ in job.images)
        return ids, [bare_row(item, read_bytes(path)) for item, path in job.images if item not in known]
    index = scan_once(job.tar, job.kept).index
    keys = index.keys.to_pylist()
    missing = [place for place, key in enumerate(keys) if key not in known]
    with TarReader(job.tar, index) as reader:
        return frozenset(keys), [bare_row(keys[place], reader.read(place)) for place in missing]


def join_attribution(jobs: list[TableJob], target: Path) -> None:
    """Join the parts: packed files behind each other are one packed file."""
    with target.open("wb") as out:
        out.write(attribution_header())
        for job in jobs:
            with job.part.open("rb") as part:
                shutil.copyfileobj(part, out, 2**20)
