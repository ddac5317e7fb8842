"""The headers of a tar file, read one by one without its data: ustar, GNU and pax, nothing taken on trust."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

BLOCK = 512
_MOST_EXTENSION = 2**20  # of a long name or pax header; a real one has a few hundred bytes
_MOST_NAME = 1024
_ZEROS = bytes(BLOCK)

Kind = Literal["file", "folder", "link", "device", "sparse file", "member of an unknown type"]
_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "link",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "device",
    b"S": "sparse file",
}
_WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))


@dataclass(frozen=True)
class Header:
    """One member: its name, what it is, where its data begin and how many bytes they have.

    ``problem`` says why the name cannot be trusted, ``name`` is then only something to show.
    """

    name: str
    kind: Kind
    offset: int
    size: int
    problem: str | None = None

    @property
    def shown(self) -> str:
        """The name in printable characters."""
        return self.name if self.name.isprintable() else ascii(self.name)[1:-1]


@dataclass(frozen=True)
class Damage:
    """What is wrong with the file as a whole; nothing is read behind it."""

    what: str


class _BadHeaderError(Exception):
    pass


def read_headers(descriptor: int) -> Iterator[Header | Damage]:
    """Yield the members of an open tar file in order; a :class:`Damage` ends the list.

    Only headers are read, 512 bytes a member, and the end of the file.

    Raises:
        OSError: the file cannot be read.
    """
    if hasattr(os, "posix_fadvise"):
        # Without this the kernel reads ahead: nearly the whole file for its headers.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    total = os.fstat(descriptor).st_size
    position = 0
    extended: dict[str, bytes] = {}
    while True:
        block = os.pread(descriptor, BLOCK, position)
        if len(block) < BLOCK:
            yield Damage(_cut(position, total))
            return
        if block == _ZEROS:
            if extended:
                yield Damage(f"its last member is missing at byte {position}")
            tail = _tail(descriptor, position, total)
            if tail is not None:
                yield Damage(tail)
            return
        try:
            flag, size = _parse(block, position)
            offset = position + BLOCK
            if flag in (b"x", b"g", b"L", b"K"):
                following = offset + -(-size // BLOCK) * BLOCK
                extended |= _extension(descriptor, flag, offset, size, total)
            else:
                header = _member(block, flag, size, offset, extended)
                following = offset
                if flag not in _WITHOUT_DATA:
                    following += -(-header.size // BLOCK) * BLOCK
                    if offset + header.size > total:
                        raise _BadHeaderError(f"it is truncated within {header.shown!r}")
                extended = {}
                yield header
        except _BadHeaderError as error:
            yield Damage(str(error))
            return
        position = following


def _cut(position: int, total: int) -> str:
    if total == 0:
        return "it is an empty file"
    return f"it is truncated: it ends at byte {total} without the closing blocks"


def _tail(descriptor: int, position: int, total: int) -> str | None:
    """Say what follows the closing blocks, if anything but zeros does."""
    while position < total:
        piece = os.pread(descriptor, 2**20, position)
        if not piece:
            return None
        if piece.count(0) < len(piece):
            return f"data follow its end at byte {position}; another tar was appended, or blocks were overwritten"
        position += len(piece)
    return None


def _parse(block: bytes, position: int) -> tuple[bytes, int]:
    """Check a header block and return its type flag and size."""
    try:
        stated = _number(block[148:156])
    except _BadHeaderError:
        stated = -1
    field = sum(block[148:156])
    # The low half of Adler-32 is 1 + the sum of all bytes modulo 65521: the checksum, in C.
    if zlib.adler32(block) & 0xFFFF != (stated + field - 256 + 1) % 65521 and not _signed(block, stated):
        if position == 0:
            raise _BadHeaderError(_not_a_tar(block))
        raise _BadHeaderError(f"its header at byte {position} is damaged; nothing behind it was read")
    size = _number(block[124:136])
    if size < 0:
        raise _BadHeaderError(f"its header at byte {position} states a negative size")
    return block[156:157], size


def _signed(block: bytes, stated: int) -> bool:
    """Some old programs summed signed characters."""
    rest = block[:148] + block[156:]
    return stated == 256 + sum(value - 256 if value > 127 else value for value in rest)


def _not_a_tar(block: bytes) -> str:
    for magic, name in ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")):
        if block.startswith(magic):
            return f"it is compressed with {name}; shards are plain tar files"
    return "it is no tar file"


def _number(field: bytes) -> int:
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    try:
        return int(field.rstrip(b"\0 ").lstrip(b" ") or b"0", 8)
    except ValueError:
        raise _BadHeaderError(f"a header states the number {field!r}") from None


def _member(block: bytes, flag: bytes, size: int, offset: int, extended: dict[str, bytes]) -> Header:
    raw = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        raw = block[345:500].split(b"\0", 1)[0] + b"/" + raw
    raw = extended.get("path", raw)
    if "size" in extended:
        try:
            size = int(extended["size"])
        except ValueError:
            raise _BadHeaderError(f"a pax header states the size {extended['size'][:40]!r}") from None
        if size < 0:
            raise _BadHeaderError("a pax header states a negative size")
    kind: Kind = _KINDS.get(flag, "member of an unknown type")
    if "GNU.sparse" in extended:
        kind = "sparse file"
    problem = None
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name, problem = raw.decode("ascii", "backslashreplace"), "its name is not UTF-8"
    if not raw:
        problem = "it has no name"
    if len(raw) > _MOST_NAME:
        name, problem = f"{name[:60]}...{name[-20:]}", f"its name has {len(raw)} bytes"
    if kind == "file" and name.endswith("/"):  # as tars before 1988 say it
        kind = "folder"
    return Header(name, kind, offset, size, problem)


def _extension(descriptor: int, flag: bytes, offset: int, size: int, total: int) -> dict[str, bytes]:
    """Read what a pax or GNU header says of the member behind it."""
    if size > _MOST_EXTENSION:
        raise _BadHeaderError(f"an extended header claims {size} bytes")
    data = os.pread(descriptor, size, offset)
    if len(data) < size or offset + size > total:
        raise _BadHeaderError("it is truncated within an extended header")
    if flag == b"L":
        return {"path": data.split(b"\0", 1)[0]}
    if flag == b"K":
        return {}
    records: dict[str, bytes] = {}
    while data.strip(b"\0"):
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or len(length) > 7 or not len(length) + 2 < int(length) <= len(data):
            raise _BadHeaderError("an extended header is damaged")
        record, data = data[len(length) + 1 : int(length)], data[int(length) :]
        key, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise _BadHeaderError("an extended header is damaged")
        name = key.decode("ascii", "backslashreplace")
        if name in ("path", "size"):
            records[name] = value[:-1]
        elif name.startswith("GNU.sparse"):
            records["GNU.sparse"] = b""
    if flag == b"g":
        if records:
            raise _BadHeaderError("a global header renames or resizes all members")
        return {}
    return records
