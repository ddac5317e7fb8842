"""Text of others in Markdown: it stays text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"([\\`*\[\]<>|&#])")
_WEB = re.compile(r"https?://[^\s<>()\"'\\|]+")


def plain(text: str) -> str:
    """Return a text of others as one line that Markdown and HTML show as it is."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return _SPECIAL.sub(lambda found: f"\\{found[1]}" if found[1] not in "<>&" else f"&#{ord(found[1])};", line)


def link(text: str, url: str) -> str:
    """Return a link if the address is one of the web, the text alone otherwise."""
    return f"[{plain(text)}](<{url}>)" if _WEB.fullmatch(url) else plain(text)


def table(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """Return a table; cells are Markdown already, numbers stand to the right."""
    lines = [list(row) for row in rows]
    right = [all(isinstance(row[at], int) for row in lines) and bool(lines) for at in range(len(header))]
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in lines]
    marks = ["---:" if number else "---" for number in right]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(header), marks, *cells])
