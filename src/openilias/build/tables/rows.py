"""The values that tables of images are read as, and what is checked of their fields, whatever the table."""

from __future__ import annotations

import re
from typing import NamedTuple


class Position(NamedTuple):
    """Where reading goes on.

    Attributes:
        number: of the next record, from 0; headers and blank lines are no records.
        line: of the file, from 1, at which it begins (in Parquet: its row).
        byte: of the file as it is unpacked, at which it begins (in Parquet: 0).
    """

    number: int = 0
    line: int = 0
    byte: int = 0


START = Position()


class Row(NamedTuple):
    """An image to fetch.

    Attributes:
        id: its key in the shards.
        urls: where it may be, best first; never empty.
        licence: its name.
        licence_url: its text.
        author: whom to name.
        page_url: where it was published.
        camera: model.
        taken: when, as the table says.
        where: file and line.
        after: where the next record begins.
    """

    id: str
    urls: tuple[str, ...]
    licence: str | None
    licence_url: str | None
    author: str | None
    page_url: str | None
    camera: str | None
    taken: str | None
    where: str
    after: Position


class Video(NamedTuple):
    """A record of the published metadata that is no photograph."""

    id: str
    where: str
    after: Position


class Bad(NamedTuple):
    """A record that cannot be used, and why."""

    reason: str
    where: str
    after: Position


Record = Row | Video | Bad

_URL = re.compile(r"https?://[^\s/?#@\\]+(?:[/?#]\S*)?", re.IGNORECASE)
_ID = re.compile(r"[\w-]{1,128}")
_MOST_URL = 2048
_MOST_TEXT = 500
_NOTHING = frozenset(("", "null", "none", "nan", "\\n"))
_LONGEST_NOTHING = max(map(len, _NOTHING))


def is_url(text: str) -> bool:
    """Tell whether a text is a URL of the web: http or https, a host, no user, no blanks; not whether it is safe."""
    return len(text) <= _MOST_URL and _URL.fullmatch(text) is not None and text.isprintable()


def is_id(text: str) -> bool:
    """Tell whether an id can be a key of a tar shard: letters, digits, ``-`` and ``_``, at most 128 characters."""
    return _ID.fullmatch(text) is not None


def clean(text: str) -> str | None:
    """Return a text of a table in printable characters, at most 500 of them; None if it says nothing."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    text = text.strip()
    if len(text) > _MOST_TEXT:
        text = text[:_MOST_TEXT].rstrip()
    return None if len(text) <= _LONGEST_NOTHING and text.lower() in _NOTHING else text
