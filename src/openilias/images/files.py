"""Reading the file of one image or text, never more than an image can have."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 256 * 2**20
"""A larger file is refused unread: no photograph is that large."""


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: it cannot be read, is no regular file (a pipe would never end), or has more than :data:`MOST_BYTES`.
    """
    # A pipe without a writer must not block either.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if facts.st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has {facts.st_size} bytes; more than {MOST_BYTES} are refused", str(path))
        return file.read()
