"""Any table of URLs: which of its columns say what, and a record of each of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from openilias.build.tables.rows import Bad, Position, Row, clean, is_id, is_url
from openilias.core.errors import OpenIliasError

_FIELDS = ("url", "id", "licence", "licence_url", "author", "page_url", "camera", "taken")
_USUAL: dict[str, tuple[str, ...]] = {  # names that a field often has, the likeliest first
    "url": ("url", "urls", "image_url", "imageurl", "img_url", "link", "originalurl", "download_url", "downloadurl"),
    "id": ("id", "key", "image_id", "imageid", "photo_id", "photoid", "uid"),
    "licence": ("licence", "license", "license_name", "licensename", "licence_name"),
    "licence_url": ("licence_url", "license_url", "licenseurl"),
    "author": ("author", "attribution", "user", "username", "user_name", "unickname", "creator"),
    "page_url": ("page_url", "pageurl", "originallandingurl", "landing_url", "source"),
    "camera": ("camera", "camera_model", "capture_device", "capturedevice"),
    "taken": ("taken", "date_taken", "datetaken", "date"),
}
_DEEPEST = 8  # lists in lists


class Columns(BaseModel, frozen=True, extra="forbid"):
    """Which columns of a table say what. What is None is looked for under its usual names.

    Attributes:
        url: where an image is; of several the first is tried first.
        id: key in the shards; without one it is the number of the row.
        licence: name of the licence.
        licence_url: its text.
        author: whom to name.
        page_url: where it was published.
        camera: model.
        taken: when.
    """

    url: tuple[str, ...] | None = None
    id: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    author: str | None = None
    page_url: str | None = None
    camera: str | None = None
    taken: str | None = None


Found = Mapping[str, tuple[str, ...]]
"""Field -> names of its columns in the table; a field that no column says is missing."""


def find_columns(names: Sequence[str], columns: Columns, *, where: str) -> Found:
    """Find the columns of a table.

    Args:
        names: of all columns.
        columns: which were asked for.
        where: the file, for messages.

    Raises:
        OpenIliasError: no column has URLs, one that was asked for is missing, or one that is used stands twice.
    """
    lower = {name.strip().lower(): name for name in reversed(names)}
    found: dict[str, tuple[str, ...]] = {}
    for field in _FIELDS:
        asked = getattr(columns, field)
        if asked is not None:
            chosen = (asked,) if isinstance(asked, str) else tuple(asked)
            missing = [name for name in chosen if name not in names]
            if missing:
                raise OpenIliasError(
                    f"This table has no column {missing[0]!r}.", where=where, fix=f"It has {_listed(names)}."
                )
        else:
            chosen = tuple(lower[name] for name in _USUAL[field] if name in lower)[:1]
        if chosen:
            found[field] = chosen
    if not found.get("url"):
        raise OpenIliasError(
            "No column of this table is known to have URLs.", where=where, fix=f"Name one of {_listed(names)}."
        )
    for name in (name for chosen in found.values() for name in chosen):
        if list(names).count(name) > 1:
            raise OpenIliasError(f"The column {name!r} stands twice.", where=where, fix="Rename one of them.")
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def make_row(values: Mapping[str, Any], found: Found, *, number: int, where: str, after: Position) -> Row | Bad:
    """Make the record of one row of a table.

    Args:
        values: by the names of the columns: text, numbers, lists of texts, None.
        found: the columns.
        number: of the row, from 0.
        where: file and line.
        after: where the next row begins.
    """
    given = [text for name in found["url"] for text in _texts(values.get(name))]
    urls = tuple(dict.fromkeys(url for url in given if is_url(url)))
    if not urls:
        what = f"{given[0][:60]!a} is no URL of the web" if given else "it has no URL"
        return Bad(what, where, after)
    name = f"{number:09d}"
    if "id" in found:
        name = next(iter(_texts(values.get(found["id"][0]))), "")
        if not is_id(name):
            return Bad(f"its id {name[:60]!a} cannot be a key: letters, digits, - and _ can", where, after)
    rest = [_first(values, found, field) for field in _FIELDS[2:]]
    return Row(name, urls, rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], where, after)


def _first(values: Mapping[str, Any], found: Found, field: str) -> str | None:
    names = found.get(field)
    return clean(" ".join(_texts(values.get(names[0])))) if names else None


def _texts(value: Any, depth: int = 0) -> list[str]:
    """Return the texts of a cell: none, one, or those of a list; lists in lists, but not so deep that it matters."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [text for one in value for text in _texts(one, depth + 1)] if depth < _DEEPEST else []
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = str(value).strip()
    return [text] if text else []
