"""Results of a long step by key, in files of lines: what a killed run had done, the next one finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.core.files import owned, read_bytes


class Kept:
    """Values that are JSON, by keys that are text; each is on the disk as soon as it is put."""

    def __init__(self, values: dict[str, Any], file: Any) -> None:
        self._values, self._file = values, file

    def __contains__(self, key: str) -> bool:
        """Tell whether there is a result."""
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        """Return a result."""
        return self._values[key]

    def put(self, key: str, value: Any) -> None:
        """Keep a result."""
        self._values[key] = value
        self._file.write(json.dumps([key, value], separators=(",", ":"), allow_nan=False).encode() + b"\n")
        self._file.flush()


@contextmanager
def kept_results(folder: Path, made_from: str, *, part: str = "") -> Iterator[Kept]:
    """Give the results that were kept of one way of making them, to read and to add to.

    Args:
        folder: of the files.
        made_from: fingerprint of all that the results depend on besides their keys; others are kept apart.
        part: whose results are added: several runs at once need a part each, and read those of all.

    Raises:
        OpenIliasError: another process adds to this part, or a file is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"{made_from}{part}.jsonl"
    own.touch()
    with owned(own, output=folder):
        values: dict[str, Any] = {}
        for path in sorted(folder.glob(f"{made_from}*.jsonl")):
            whole = _lines(path, values)
            if path == own:
                _cut(own, whole)
        with own.open("ab") as file:
            yield Kept(values, file)


def _lines(path: Path, values: dict[str, Any]) -> int:
    """Read the whole lines of a file into ``values``; return their bytes. A last line without an end was cut off."""
    whole = 0
    for number, line in enumerate(read_bytes(path).splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            key, value = json.loads(line)
            values[str(key)] = value
        except (ValueError, TypeError):
            raise OpenIliasError(
                "This file of kept results is damaged.", where=f"{path}, line {number}", fix="Remove the file."
            ) from None
        whole += len(line)
    return whole


def _cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)
