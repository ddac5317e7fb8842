"""The index of a shard on disk: made once, used by every later reading of the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, state_of_file
from openilias.images.tars import TarIndex, TarScan, Unusable, scan_tar

VERSION = 1  # changes when the same file gives another scan
_ABOUT = b"openilias"
_ENDING = ".index.parquet"


def scan_once(path: Path, folder: Path | None) -> TarScan:
    """Scan a shard, or read the scan that ``folder`` keeps of this very file.

    Args:
        path: the shard.
        folder: where scans are kept, one Parquet file a shard; None keeps nothing. A scan is used again only if
            the shard is the very file that it was made from; anything else is made anew.

    Raises:
        OpenIliasError: the shard cannot be read.
    """
    if folder is None:
        return scan_tar(path)
    kept = folder / f"{path.name}{_ENDING}"
    state = _state(path)
    scan = _read(kept, state)
    if scan is None:
        scan = scan_tar(path)
        if not scan.broken:  # a refused shard will be replaced; nothing of it is worth keeping
            _write(kept, state, scan)
    return scan


def _state(path: Path) -> dict[str, Any]:
    try:
        return {"version": VERSION, "shard": str(path.resolve()), "file": state_of_file(path)}
    except OSError as error:
        raise OpenIliasError(f"This tar shard cannot be read: {error.strerror}.", where=path) from None


def _write(kept: Path, state: dict[str, Any], scan: TarScan) -> None:
    about = {
        "state": state,
        "unusable": [[member.name, member.reason] for member in scan.unusable],
        "strange": [[member.name, member.reason] for member in scan.strange],
        "others": dict(scan.others),
    }
    index = scan.index
    table = pa.table({"key": index.keys, "offset": index.offsets, "size": index.sizes})
    with atomic_path(kept) as temporary:
        pq.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(about).encode()}), temporary)


def _read(kept: Path, state: dict[str, Any]) -> TarScan | None:
    """Read a kept scan; None if there is none of this file. A damaged one is a cache to be made again."""
    if not kept.exists():
        return None
    try:
        table = pq.read_table(kept)
        about = json.loads(table.schema.metadata[_ABOUT])
        if about["state"] != state:
            return None
        keys = table["key"].combine_chunks()
        index = TarIndex(
            keys if isinstance(keys, pa.StringArray) else keys.chunk(0),
            np.asarray(table["offset"], np.int64),
            np.asarray(table["size"], np.int64),
        )
        unusable, strange = (tuple(Unusable(*pair) for pair in about[name]) for name in ("unusable", "strange"))
        return TarScan(index, unusable, strange, about["others"])
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
        return None
