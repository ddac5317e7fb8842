"""Lines of a large text file one by one, plain or compressed, from any byte on, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from openilias.core.errors import OpenIliasError
from openilias.core.files import open_regular

MOST_LINE = 2**20
"""Longer lines are passed over and named; those of the published metadata have at most some tens of KiB."""

_PIECE = 2**20


class Line(NamedTuple):
    """A line without its end.

    Attributes:
        number: from 1.
        content: its bytes; None if it is longer than :data:`MOST_LINE`.
        end: the byte behind it and its end, in the file as it is unpacked.
    """

    number: int
    content: bytes | None
    end: int


@contextmanager
def unpacked(source: Path) -> Iterator[IO[bytes]]:
    """Open a file for its bytes, unpacked if it is gzip or bzip2, which its first bytes tell.

    Raises:
        OpenIliasError: it cannot be opened or read, or its compression is damaged or cut off.
    """
    try:
        with open_regular(source) as file:
            start = file.read(3)
            file.seek(0)
            opened: IO[bytes] = file
            if start == b"BZh":
                opened = bz2.BZ2File(file)
            elif start[:2] == b"\x1f\x8b":
                opened = cast(IO[bytes], gzip.GzipFile(fileobj=file))
            yield opened
    except (EOFError, OSError, zlib.error) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise OpenIliasError(
            f"This file cannot be read to its end: {what.rstrip('.')}.", where=source, fix="Fetch it again."
        ) from None


def is_packed(source: Path) -> bool:
    """Tell whether a file is gzip or bzip2, so that whoever wants its end unpacks all of it.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(source) as file:
        start = file.read(3)
    return start == b"BZh" or start[:2] == b"\x1f\x8b"


def lines_of(file: IO[bytes], *, number: int = 1, start: int = 0) -> Iterator[Line]:
    """Yield the lines of an open file from a byte on; the last one need not have an end.

    Args:
        file: open at its beginning.
        number: of the line that begins at ``start``.
        start: where to begin, in the file as it is unpacked; what is compressed is unpacked up to there.
    """
    if start:
        file.seek(start)
    end = start
    while content := file.readline(MOST_LINE + 2):
        end += len(content)
        if content.endswith(b"\n") or len(content) < MOST_LINE + 2:
            yield Line(number, content.rstrip(b"\r\n"), end)
        else:
            while (more := file.readline(_PIECE)) and not more.endswith(b"\n"):
                end += len(more)
            end += len(more)
            yield Line(number, None, end)
        number += 1
