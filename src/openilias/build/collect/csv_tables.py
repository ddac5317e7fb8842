"""Small CSV tables that people edit: read strictly, written the same way every time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import read_bytes

_MOST_BYTES = 64 * 2**20


class Line(NamedTuple):
    """A row of a table.

    Attributes:
        where: file and line, for messages.
        values: column -> text; a column that the table lacks is empty.
    """

    where: str
    values: dict[str, str]


def read_table(path: Path, *, required: Sequence[str], optional: Sequence[str] = (), exact: bool = False) -> list[Line]:
    """Read a CSV table with a header, in UTF-8; ``exact`` leaves blanks around texts.

    Raises:
        OpenIliasError: it cannot be read, lacks a column, has one that is unknown or twice, or a row of another length.
    """
    try:
        text = read_bytes(path, most=_MOST_BYTES).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise OpenIliasError("There is no such table.", where=path, fix="Check the path.") from None
    except (OSError, ValueError, csv.Error) as error:
        raise OpenIliasError(f"This table cannot be read: {error}.", where=path, fix="Give CSV in UTF-8.") from None
    rows = [(number, row) for number, row in rows if any(cell.strip() for cell in row)]
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    _check_header(path, header, required, optional)
    found = []
    for number, cells in rows[1:]:
        row = cells if exact else [cell.strip() for cell in cells]
        where = f"{path}, line {number}"
        if len(row) != len(header):
            what = f"This row has {len(row)} fields, its header {len(header)}."
            raise OpenIliasError(what, where=where, fix="Put texts with commas in quotes.")
        strange = [cell for cell in row if not cell.replace("\n", " ").replace("\t", " ").isprintable()]
        if strange:
            raise OpenIliasError(f"This text has control characters: {strange[0]!r}.", where=where, fix="Remove them.")
        found.append(Line(where, dict.fromkeys((*required, *optional), "") | dict(zip(header, row, strict=True))))
    return found


def _check_header(path: Path, header: list[str], required: Sequence[str], optional: Sequence[str]) -> None:
    columns = ",".join(required) + "".join(f"[,{name}]" for name in optional)
    missing = [name for name in required if name not in header]
    unknown = [repr(name) for name in header if name not in required and name not in optional]
    problem = None
    if len(header) == 1 and ";" in header[0]:
        problem = "Its fields are separated by semicolons, and commas are read."
    elif missing:
        problem = f"These columns are missing: {', '.join(missing)}."
    elif unknown:
        problem = f"These columns are not known: {first_few(unknown)}."
    elif len(set(header)) < len(header):
        problem = "A column stands twice."
    if problem:
        raise OpenIliasError(problem, where=path, fix=f"The first line is: {columns}")


def table_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a table as CSV in UTF-8 with its header; None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue().encode()
