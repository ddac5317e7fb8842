"""WebDataset tar shards of images: an index built once, random access, streaming, and a writer of exact bytes.

What counts as an image is the rule of the official release: the key is the name of a member up to the first dot of
its last part, and the member is an image if all that follows that dot is ``jpg``. Whatever looks like an image and does
not count, or cannot be used, is named; nothing is passed over in silence. The WebDataset library differs in two points:
it takes ``JPG`` for ``jpg``, and a leading ``./`` is part of its keys.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.files import open_regular
from openilias.images.decode import MOST_BYTES
from openilias.images.headers import Damage, Header, read_headers

IMAGE_ENDINGS = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif", "avif")
)
"""Members with another ending than ``jpg`` that somebody may take for images of the shard."""

_MOST_ENDINGS = 20  # of side files, told apart

_REBUILD = "Download or rebuild the shard."


@dataclass(frozen=True)
class TarMember:
    """One image of a shard: its key and where its bytes lie in the file."""

    key: str
    offset: int
    size: int


@dataclass(frozen=True)
class Unusable:
    """A member that is not used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class TarIndex:
    """The images of a shard in the order of the file; 16 bytes and the key each.

    Attributes:
        keys: Arrow strings (N,).
        offsets: (N,) int64, of the first byte of each image in the file.
        sizes: (N,) int64, in bytes.
    """

    keys: pa.StringArray
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.offsets)

    def key(self, place: int) -> str:
        """Return the key of one image."""
        return str(self.keys[place].as_py())

    def member(self, place: int) -> TarMember:
        """Return one image."""
        return TarMember(self.key(place), int(self.offsets[place]), int(self.sizes[place]))

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the images in the order of the file."""
        for place in range(len(self)):
            yield self.member(place)


@dataclass(frozen=True, eq=False)
class TarScan:
    """All that the headers of a shard say.

    Attributes:
        index: the images.
        unusable: members that look like images and are not used: another ending, a dotted key, a hostile name, a
            link, a sparse file, more than :data:`MOST_BYTES`.
        strange: other members that no shard should have: links, devices, hostile names.
        others: how many side files there are of each ending (what follows the last dot), folders included as ``/``.
        broken: what makes the whole shard refused: truncated, damaged headers, duplicated keys, no tar at all.
    """

    index: TarIndex
    unusable: tuple[Unusable, ...] = ()
    strange: tuple[Unusable, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[str, ...] = ()


def scan_tar(path: Path) -> TarScan:
    """Read all headers of a shard and judge every member; only an unreadable file raises.

    Raises:
        OpenIliasError: the file cannot be opened or read.
    """
    judge = _Judge()
    try:
        with open_regular(path) as file:
            for found in read_headers(file.fileno()):
                judge.take(found)
    except OSError as error:
        raise _unreadable(path, error) from None
    return judge.verdict()


def _unreadable(path: Path, error: OSError) -> OpenIliasError:
    return OpenIliasError(f"This tar shard cannot be read: {error.strerror}.", where=path, fix=_REBUILD)


class _Judge:
    """Sorts the headers of one shard into images, side files, and what cannot be used."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.offsets: list[int] = []
        self.sizes: list[int] = []
        self.perhaps: list[tuple[str, Unusable]] = []
        self.strange: list[Unusable] = []
        self.others: dict[str, int] = {}
        self.broken: list[str] = []
        self.twice: dict[str, int] = {}

    def take(self, found: Header | Damage) -> None:
        if isinstance(found, Damage):
            self.broken.append(found.what)
            return
        name = found.name.removeprefix("./")
        folder, slash, last = name.rpartition("/")
        stem, _, ending = last.partition(".")
        key = folder + slash + stem
        if found.kind == "folder":
            self._count("/")
            return
        reason = _refusal(found, name)
        looks = bool(stem) and ending.rpartition(".")[2].lower() in IMAGE_ENDINGS
        if reason is None and ending == "jpg" and stem:
            if key in self.keys:
                self.twice[key] = self.twice.get(key, 1) + 1
                return
            self.keys[key] = len(self.offsets)
            self.offsets.append(found.offset)
            self.sizes.append(found.size)
        elif reason is not None:
            (self.perhaps.append((name, Unusable(found.shown, reason))) if looks else self._odd(found, reason))
        elif looks:
            self.perhaps.append((key, Unusable(found.shown, _ending(key, ending))))
        else:
            self._count(ending)

    def _odd(self, found: Header, reason: str) -> None:
        self.strange.append(Unusable(found.shown, reason))

    def _count(self, ending: str) -> None:
        last = ending if ending == "/" else f".{ending.rpartition('.')[2]}" if ending else "no ending"
        if last not in self.others and len(self.others) >= _MOST_ENDINGS:
            last = "more"
        self.others[last] = self.others.get(last, 0) + 1

    def verdict(self) -> TarScan:
        unusable = []
        for key, member in self.perhaps:
            # 0001.mask.png beside 0001.jpg is a side file of it, not a lost image.
            if key in self.keys:
                self._count(member.name)
            else:
                unusable.append(member)
        self.broken += [f"the key {key!r} stands {count} times" for key, count in sorted(self.twice.items())]
        index = TarIndex(
            pa.array(list(self.keys), pa.string()), np.array(self.offsets, np.int64), np.array(self.sizes, np.int64)
        )
        return TarScan(
            index, tuple(unusable), tuple(self.strange), dict(sorted(self.others.items())), tuple(self.broken)
        )


def _ending(key: str, ending: str) -> str:
    if "." in ending:
        return f"the key ends at the first dot: {key!r}, and the rest, {ending!r}, is not 'jpg'"
    return f"its ending is {ending!r}, and only 'jpg' counts as an image"


def _refusal(found: Header, name: str) -> str | None:
    """Return why a member must not be used, whatever it is."""
    if found.kind != "file":
        return f"it is a {found.kind}, not a file"
    if found.problem is not None:
        return found.problem
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\\" in name:
        return "its name points outside the shard"
    if "" in parts or "." in parts or not name.isprintable():
        return "its name is not plain text"
    if found.size > MOST_BYTES:
        return f"it claims {found.size} bytes; more than {MOST_BYTES} are refused"
    return None


def index_tar(path: Path) -> TarIndex:
    """List the images of a shard in the order of the file.

    Raises:
        OpenIliasError: the shard cannot be read, or is refused as a whole (:attr:`TarScan.broken`).
    """
    return whole(path, scan_tar(path)).index


def whole(path: Path, scan: TarScan) -> TarScan:
    """Give back a scan of a shard that is sound as a whole.

    Raises:
        OpenIliasError: it is not; the message says all that is wrong with it.
    """
    if scan.broken:
        raise OpenIliasError(f"This tar shard is refused: {first_few(list(scan.broken))}.", where=path, fix=_REBUILD)
    return scan


def read_member(path: Path, member: TarMember) -> bytes:
    """Return the bytes of one image of a shard.

    Raises:
        OSError: the file cannot be read.
        OpenIliasError: the file has become shorter than its index says.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _read(descriptor, member.offset, member.size, path)
    finally:
        os.close(descriptor)


def _read(descriptor: int, offset: int, size: int, path: Path) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            raise OpenIliasError("This tar shard is shorter than its index says.", where=path, fix=_REBUILD)
        data += more
    return data


class TarReader:
    """An open shard: any image by its place, or all of them in the order of the file. Threads may share it.

    One image is held at a time, never the tar.
    """

    def __init__(self, path: Path, index: TarIndex | None = None) -> None:
        """Open a shard.

        Args:
            path: the tar file.
            index: of that file; read from its headers if not given.

        Raises:
            OpenIliasError: the shard is refused, or cannot be opened.
        """
        self.path = path
        self.index = index_tar(path) if index is None else index
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise _unreadable(path, error) from None

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.index)

    def read(self, place: int) -> bytes:
        """Return the bytes of the image at ``place``."""
        return _read(self._descriptor, int(self.index.offsets[place]), int(self.index.sizes[place]), self.path)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield (key, bytes) in the order of the file."""
        for place in range(len(self)):
            yield self.index.key(place), self.read(place)

    def close(self) -> None:
        """Close the file; twice does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar of ``(name, bytes)`` members whose own bytes depend on nothing else.

    No times, owners or modes of this machine enter the file. ``path`` is not written atomically: give a path of
    :func:`openilias.core.files.atomic_path`.

    Raises:
        OpenIliasError: a name stands twice, is hostile, or does not fit a tar header (256 bytes of UTF-8).
    """
    seen: set[str] = set()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o644
            refused = _refusal(Header(name, "file", 0, len(data)), name.removeprefix("./"))
            if name in seen or refused is not None:
                raise OpenIliasError(
                    f"The member {name!r} cannot be written: {refused or 'the name stands twice'}.", where=path
                )
            seen.add(name)
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError as error:  # the name does not fit
                raise OpenIliasError(f"The member {name!r} cannot be written: {error}.", where=path) from None


def image_name(key: str) -> str:
    """Return the member name of an image key.

    Raises:
        OpenIliasError: a shard cannot hold that key: it has a dot in its last part, or no last part.
    """
    last = key.rpartition("/")[2]
    if not last or "." in last:
        raise OpenIliasError(
            f"A tar shard cannot hold the key {key!r}: keys end at the first dot.", fix="Rename the image."
        )
    return f"{key}.jpg"
