"""The files that say which class an image is of: Parquet, lists, folders."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openilias.core.errors import OpenIliasError, first_few

COLUMNS = ("id", "label", "domain")
"""Of ``labels.parquet``."""
Columns = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Ids, labels, domains."""
_NAMES = {"id": ("path", "id", "image", "file"), "label": ("label", "class"), "domain": ("domain",)}
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def from_parquet(path: Path) -> Columns:
    """Read a table with the columns id, label (text or whole numbers) and domain.

    Raises:
        OpenIliasError: no Parquet, missing columns, empty values, or values that are no text.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise OpenIliasError(f"This file is not readable Parquet: {error}.", where=path, fix="Make it again.") from None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise OpenIliasError(
            f"These columns are missing: {', '.join(missing)}.", where=path, fix="Give the columns id, label, domain."
        )
    try:
        values = {name: table.column(name).to_pylist() for name in COLUMNS}
    except ValueError as error:
        raise OpenIliasError(
            f"This file has text that is not UTF-8: {error}.", where=path, fix="Make it again."
        ) from None
    for name, column in values.items():
        for row, value in enumerate(column):
            if value is None or (isinstance(value, str) and not value.strip()) or value != value:
                raise OpenIliasError(f"The {name} is empty.", where=f"{path}, row {row}", fix="Fill it in.")
            whole = isinstance(value, int) and not isinstance(value, bool) and name == "label"
            if not whole and not (isinstance(value, str) and value.isprintable()):
                raise OpenIliasError(
                    f"The {name} must be text, not {value!r}.", where=f"{path}, row {row}", fix="Write text."
                )
    return _columns([(i, str(label), str(d)) for i, label, d in zip(*values.values(), strict=True)])


def from_lines(path: Path) -> Columns:
    """Read a list of lines ``path,label,domain``, or CSV whose first line names the columns.

    Without a column of domains all images are of one, named as the file.

    Raises:
        OpenIliasError: no text, or a malformed line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = [word.strip().lower() for word in next(csv.reader(file), [])]
            file.seek(0)
            if all(any(name in first for name in _NAMES[kind]) for kind in ("id", "label")):
                return _columns(list(_from_csv(csv.reader(file, strict=True), path)))
            lines = file.read().splitlines()
    except (OSError, ValueError, csv.Error) as error:
        raise OpenIliasError(f"This list cannot be read: {error}.", where=path, fix="Give UTF-8 text.") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        words = [word.strip() for word in line.rsplit(",", 2)]  # a path may hold commas
        if len(words) != 3 or not all(words):
            raise OpenIliasError(
                f"Expected 'path,label,domain', found {line!r}.", where=f"{path}, line {number}", fix="Correct it."
            )
        rows.append((words[0], words[1], words[2]))
    return _columns(rows)


def _from_csv(reader: Any, path: Path) -> Iterator[tuple[str, str, str]]:
    header = [word.strip().lower() for word in next(reader)]
    places = {kind: [header.index(name) for name in names if name in header][:1] for kind, names in _NAMES.items()}
    for words in reader:
        if not words:
            continue
        found = [words[place].strip() if place < len(words) else "" for at in places.values() for place in at]
        if len(words) != len(header) or not all(found):
            raise OpenIliasError(
                f"Expected {','.join(header)}, found {','.join(words)!r}.",
                where=f"{path}, line {reader.line_num}",
                fix="Correct it.",
            )
        yield found[0], found[1], found[2] if places["domain"] else path.stem


def from_folders(root: Path) -> Columns:
    """Read a folder of a folder of images per class, or per domain and class; a label is a folder's name.

    Without folders of domains all images are of one, named as the folder. Hidden files are passed over.

    Raises:
        OpenIliasError: images elsewhere, both kinds mixed, or no images at all.
    """
    found: list[tuple[str, str, str]] = []
    depths: dict[int, str] = {}
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        place = Path(folder).relative_to(root)
        images = sorted(name for name in files if not name.startswith(".") and Path(name).suffix.lower() in _IMAGES)
        if not images:
            continue
        depths.setdefault(len(place.parts), (place / images[0]).as_posix())
        if len(place.parts) not in (1, 2):
            break
        domain = place.parts[0] if len(place.parts) == 2 else root.resolve().name
        found += [((place / name).as_posix(), place.name, domain) for name in images]
    if not depths:
        raise OpenIliasError(
            "This folder has neither labels.parquet nor a folder of images per class.",
            where=root,
            fix="Complete it, or give a list of path,label,domain.",
        )
    if set(depths) not in ({1}, {2}):
        raise OpenIliasError(
            f"These images lie neither all in CLASS/ nor all in DOMAIN/CLASS/: {first_few(list(depths.values()))}.",
            where=root,
            fix="Move them, or give a list of path,label,domain.",
        )
    return _columns(found)


def _columns(rows: Sequence[tuple[str, str, str]]) -> Columns:
    return tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(row[2] for row in rows)
