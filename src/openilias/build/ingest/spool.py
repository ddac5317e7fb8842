"""What has become of the rows of a shard that is being made: an append-only file, whole to the last row that finished.

Each entry has a head of fixed size with a checksum, so that a file whose writer was killed, or whose machine lost its
power, is cut back to its last whole entry.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from openilias.build.stored import StoredImage
from openilias.core.errors import OpenIliasError

_HEAD = struct.Struct("<4sIIII")  # magic, row, bytes of JSON, bytes of the image, CRC-32 of both
_MAGIC = b"row\n"
_MOST_TEXT = 2**24


class Spool:
    """The rows of a shard that are done, in the order in which they were; read by their number in the shard."""

    def __init__(self, path: Path, rows: int) -> None:
        """Open a spool, and cut off what a killed writer left of an entry.

        Args:
            path: the file; it is made if there is none.
            rows: of the shard.
        """
        self.path = path
        self._file = path.open("a+b", buffering=0)
        self._places = np.full(rows, -1, np.int64)
        self._end = 0
        for row, place, end in self._entries():
            self._places[row] = place
            self._end = end
        self._file.truncate(self._end)

    def __contains__(self, row: int) -> bool:
        """Tell whether a row is done."""
        return bool(self._places[row] >= 0)

    def __len__(self) -> int:
        """Return how many rows are done."""
        return int((self._places >= 0).sum())

    def add(self, row: int, image: StoredImage, jpeg: bytes = b"") -> None:
        """Add what became of a row.

        Raises:
            OpenIliasError: the disk is full or fails.
        """
        text = json.dumps(vars(image), ensure_ascii=False).encode("utf-8", "surrogatepass")
        check = zlib.crc32(jpeg, zlib.crc32(text))
        entry = memoryview(_HEAD.pack(_MAGIC, row, len(text), len(jpeg), check) + text + jpeg)
        size = len(entry)
        try:
            while entry:
                entry = entry[self._file.write(entry) :]
        except OSError as error:
            raise OpenIliasError(
                f"It cannot be written: {error.strerror}.",
                where=self.path,
                fix="Make room; what has come is kept, and the same command goes on from there.",
            ) from None
        self._places[row] = self._end
        self._end += size

    def read(self, row: int, *, image: bool = True) -> tuple[StoredImage, bytes]:
        """Return what became of a row that is done, and the bytes of its image if they are wanted."""
        place = int(self._places[row])
        _, _, text, jpeg, _ = _HEAD.unpack(self._bytes(place, _HEAD.size))
        start = place + _HEAD.size
        known = StoredImage(**json.loads(self._bytes(start, text).decode("utf-8", "surrogatepass")))
        return known, self._bytes(start + text, jpeg) if image else b""

    def close(self) -> None:
        """Close the file; twice does no harm."""
        self._file.close()

    def _bytes(self, start: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, start)

    def _entries(self) -> Iterator[tuple[int, int, int]]:
        """Yield row, place and end of the whole entries, up to the first that is not."""
        place = 0
        while len(head := self._bytes(place, _HEAD.size)) == _HEAD.size:
            magic, row, text, jpeg, check = _HEAD.unpack(head)
            if magic != _MAGIC or row >= len(self._places) or text > _MOST_TEXT or jpeg > 2**30:
                return
            body = self._bytes(place + _HEAD.size, text + jpeg)
            end = place + _HEAD.size + text + jpeg
            if len(body) < text + jpeg or zlib.crc32(body) != check:
                return
            yield row, place, end
            place = end
