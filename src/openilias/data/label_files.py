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
from openilias.core.progress import tell
from openilias.data.ilias import IMAGE_ENDINGS

COLUMNS = ("id", "label", "domain")
"""Of ``labels.parquet``."""
Columns = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Ids, labels, domains."""
_NAMES = {"id": ("path", "id", "image", "file"), "label": ("label", "class"), "domain": ("domain",)}
ONE_DOMAIN = "all"
"""The domain of images of which none is said."""


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

    Without a column of domains all images are of one, :data:`ONE_DOMAIN`.

    Raises:
        OpenIliasError: no text, or a malformed line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = _is_header(file.readline())
            file.seek(0)
            if header:
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


def _is_header(line: str) -> bool:
    """Whether a line names the columns; a path or a file is no name of a column."""
    words = [word.strip().lower() for word in next(csv.reader([line]), [])]
    named = all(any(name in words for name in _NAMES[kind]) for kind in ("id", "label"))
    return named and not any("/" in word or "." in word for word in words)


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
        yield found[0], found[1], found[2] if places["domain"] else ONE_DOMAIN


def from_folders(root: Path) -> Columns:
    """Read a folder of a folder of images per class, or per domain and class; a label is a folder's name.

    Without folders of domains all images are of one, :data:`ONE_DOMAIN`. Hidden files are passed over, others that are
    no images too, told. Links to folders of domains and classes are followed.

    Raises:
        OpenIliasError: images elsewhere, both kinds mixed, names that are not UTF-8, or no images at all.
    """
    found: list[tuple[str, str, str]] = []
    depths: dict[int, str] = {}
    others: list[str] = []
    for folder, inner, files in os.walk(root, followlinks=True):
        place = Path(folder).relative_to(root)
        seen = [name for name in inner if not name.startswith(".")]
        inner[:] = sorted(name for name in seen if len(place.parts) < 2 or not Path(folder, name).is_symlink())
        shown = sorted(name for name in files if not name.startswith("."))
        images = [name for name in shown if name.lower().endswith(IMAGE_ENDINGS)]
        others += [str(place / name) for name in shown if not name.lower().endswith(IMAGE_ENDINGS)]
        if not images:
            continue
        depths.setdefault(len(place.parts), (place / images[0]).as_posix())
        if len(place.parts) not in (1, 2):
            break
        domain = place.parts[0] if len(place.parts) == 2 else ONE_DOMAIN
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
    strange = [repr(item) for item, *_ in found if not _is_text(item)]
    if strange:
        raise OpenIliasError(f"These names are not UTF-8: {first_few(strange)}.", where=root, fix="Rename them.")
    if others:
        tell(f"{root}: {len(others):,} files are no images, and passed over: {first_few(others)}")
    return _columns(found)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _columns(rows: Sequence[tuple[str, str, str]]) -> Columns:
    return tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(row[2] for row in rows)
