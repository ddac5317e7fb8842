"""WebDataset tar shards of images: which members there are, their bytes, and writing them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from openilias.core.errors import OpenIliasError


@dataclass(frozen=True)
class TarMember:
    """One image of a shard: its key (the member name up to the first dot) and where its bytes lie."""

    key: str
    offset: int
    size: int


def index_tar(path: Path) -> list[TarMember]:
    """List the images of a shard in the order of the file.

    As in WebDataset and the official code the key is the name up to the first dot of its last part, and a member
    is an image if all that follows that dot is ``jpg``. A leading ``./`` is no part of the key.

    Raises:
        OpenIliasError: the file is no tar, is truncated, or has two images of one key.
    """
    members: list[TarMember] = []
    seen: set[str] = set()
    end = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, slash, last = info.name.removeprefix("./").rpartition("/")
                stem, _, ending = last.partition(".")
                if not info.isreg() or ending != "jpg" or not stem:
                    continue
                key = folder + slash + stem
                if key in seen:
                    raise OpenIliasError(
                        f"Two images of this shard have the key {key!r}.",
                        where=path,
                        fix="Rebuild the shard.",
                    )
                seen.add(key)
                members.append(TarMember(key, info.offset_data, info.size))
    except (tarfile.TarError, OSError) as error:
        raise OpenIliasError(
            f"This tar shard cannot be read: {getattr(error, 'strerror', None) or error}.",
            where=path,
            fix="Download or rebuild the shard.",
        ) from None
    # tarfile takes a file cut within a header for a shorter tar; a whole one closes with a block of zeros.
    with path.open("rb") as handle:
        handle.seek(end)
        if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise OpenIliasError("This tar shard is truncated.", where=path, fix="Download or rebuild the shard.")
    return members


def read_member(path: Path, member: TarMember) -> bytes:
    """Return the bytes of one image of a shard."""
    with path.open("rb") as handle:
        handle.seek(member.offset)
        return handle.read(member.size)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar of ``(name, bytes)`` members whose own bytes depend on nothing else.

    No times, owners or modes of this machine enter the file. ``path`` is not written atomically: give a path of
    :func:`openilias.core.files.atomic_path`.
    """
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(data))
