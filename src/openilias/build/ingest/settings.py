"""What an ingest is made from, and the manifest that keeps a folder to it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from openilias.build.normalise import ALGORITHM_VERSION as NORMALISE_VERSION
from openilias.build.normalise import NormaliseSettings
from openilias.build.stored import ROWS
from openilias.build.tables.metadata import ALGORITHM_VERSION as TABLES_VERSION
from openilias.build.tables.metadata import Columns, Kind, Table, open_table
from openilias.core.errors import OpenIliasError
from openilias.core.files import is_temporary, open_regular
from openilias.core.fingerprints import differences, fingerprint
from openilias.core.manifests import read_manifest, write_manifest

ALGORITHM_VERSION = 1  # changes when the same answers of servers are stored as other bytes
SHARDS = "yfcc100m"  # the folder of the shards, whatever their name
KIND = "ingest"
MANIFEST = "manifest.json"
_PIECES, _PIECE = 256, 2**16


class IngestSettings(BaseModel, frozen=True, extra="forbid"):
    """Everything that changes a byte of what comes out, besides the tables and what servers answer.

    Attributes:
        name: of the shards, ``<name>_0000.tar``.
        per_shard: rows of the table in each: photographs that are asked for, and records that cannot be used.
        limit: rows of the table at most; all by default.
        normalise: what is done to each image.
        columns: of a table of URLs.
        kind: how the tables are written, if their endings do not tell.
        second: when the next URL of a row is asked for: when the one before says that it has no such image
            (``gone``), or also when it fails for a time (``always``).
        most_bytes: larger files are refused.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = "yfcc100m"
    per_shard: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    limit: Annotated[int, Field(ge=1)] | None = None
    normalise: NormaliseSettings = NormaliseSettings()
    columns: Columns = Columns()
    kind: Kind | None = None
    second: Literal["gone", "always"] = "gone"
    most_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 64 * 2**20


def open_tables(paths: Sequence[Path], settings: IngestSettings) -> list[Table]:
    """Open the tables.

    Raises:
        OpenIliasError: there is none, one stands twice or cannot be read, or rows of two would have the same ids.
    """
    if not paths:
        raise OpenIliasError("There is no table.", fix="Give the metadata of YFCC100M, or a table of URLs.")
    if len({os.path.realpath(path) for path in paths}) < len(paths):
        raise OpenIliasError("A table stands twice.", fix="Name each once.")
    columns = settings.columns if settings.columns != Columns() else None
    tables = [open_table(path, kind=settings.kind, columns=columns) for path in paths]
    unnamed = [table for table in tables if table.kind != "yfcc" and "id" not in table.found]
    if unnamed and len(tables) > 1:
        raise OpenIliasError(
            "This table has no ids, so its rows would be numbered, and those of the other tables too.",
            where=unnamed[0].path,
            fix="Name its column of ids, or ingest it alone.",
        )
    return tables


def made_from(tables: Sequence[Table], settings: IngestSettings) -> dict[str, Any]:
    """Return what identifies an ingest; no paths, so that a table may be moved."""
    values = settings.model_dump(mode="json")
    return {
        "version": ALGORITHM_VERSION,
        "normalise_version": NORMALISE_VERSION,
        "tables_version": TABLES_VERSION,
        "tables": [_identity(table.path) for table in tables],
        "settings": values,
    }


def _identity(path: Path) -> dict[str, Any]:
    """Identify a large file by its name, its size, and pieces that are spread over it."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        last = max(0, size - _PIECE)
        for start in sorted({last * at // (_PIECES - 1) for at in range(_PIECES)}):
            digest.update(os.pread(file.fileno(), _PIECE, start))
    return {"name": path.name, "bytes": size, "pieces": digest.hexdigest()[:32]}


def begin(folder: Path, root: Path, name: str, made: dict[str, Any]) -> None:
    """Write the manifest of an ingest whose plan is to be made; nobody else may be doing the same.

    One that was cut off or failed before it had a plan binds nobody.

    Raises:
        OpenIliasError: there are shards that were made from something else, or by somebody else.
    """
    path = folder / MANIFEST
    begun = [*(root / SHARDS).glob("*.tar"), *(root / ROWS).glob(f"{name}_*.parquet")]
    begun += [place for place in folder.iterdir() if place.is_dir() and not is_temporary(place.name)]
    if begun and path.exists():
        keep_to(folder, made)
    elif begun:
        raise OpenIliasError(
            "There are shards here that were not made by this ingest.",
            where=sorted(begun)[0],
            fix="Give another --out.",
        )
    else:
        write_manifest(path, kind=KIND, made_from=made)


def keep_to(folder: Path, made: dict[str, Any]) -> None:
    """Keep a folder to one ingest.

    Raises:
        OpenIliasError: what is there was made from something else.
    """
    manifest = read_manifest(folder / MANIFEST, kind=KIND)
    if manifest.get("fingerprint") != fingerprint(made):
        changed = differences(manifest["made_from"], made)
        raise OpenIliasError(
            "This ingest was made from something else:\n    " + "\n    ".join(changed[:12]),
            where=folder,
            fix="Give the same tables and settings to go on, or another --out.",
        )
