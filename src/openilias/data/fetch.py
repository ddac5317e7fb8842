"""One file from a server to its place: whole and verified, or not there; killed, it goes on where it was."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp

from openilias.core.errors import OpenIliasError
from openilias.core.files import owned, read_json, sync_folder, temporary_of, write_json
from openilias.core.fingerprints import fingerprint
from openilias.core.progress import tell
from openilias.data.http import Client, RequestError, Tries, length_of

T = TypeVar("T")
_BLOCK = 2**20
_ORIGIN = ".origin"
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})")


class DiskError(OpenIliasError):
    """The disk is full or fails: it will for all other files too."""


@dataclass(frozen=True)
class Fetched:
    """A file that has come: its bytes and their digest."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Meter:
    """Told how many bytes have come, and how many are to come again because they were thrown away."""

    came: Callable[[int], None]
    again: Callable[[int], None]


@dataclass(frozen=True)
class _Origin:
    """Where the bytes that are here came from: the URL, what changes when its file does, and its size."""

    url: str
    validator: str | None
    size: int | None


def partial_of(target: Path, url: str, sha256: str | None) -> Path:
    """Return where the bytes of a file are kept until all are here: bytes of one digest may come from two places."""
    return temporary_of(target, fingerprint({"is": sha256 or url})[:12])


def bytes_here(target: Path, url: str, sha256: str | None) -> int:
    """Return how many bytes of a file are here from a run that was cut off."""
    partial = partial_of(target, url, sha256)
    return partial.stat().st_size if partial.is_file() else 0


async def fetch_file(
    client: Client,
    url: str,
    target: Path,
    *,
    name: str,
    sha256: str | None,
    size: int | None,
    meter: Meter,
    unless: Callable[[], bool],
) -> Fetched | None:
    """Fetch one file.

    Args:
        client: asks the server.
        url: of the file.
        target: its final name; a file of that name is replaced when the new one is whole.
        name: of it, in messages.
        sha256: its published digest, if there is one.
        size: its size, as far as it is known before.
        meter: told what comes.
        unless: asked when nobody else may fetch it any more: whether it is there by now.

    Returns:
        what came; None if another process brought it here meanwhile.

    Raises:
        RequestError: it cannot be had.
        OpenIliasError: another process is fetching it.
        DiskError: it cannot be written.
    """
    target = target.resolve()
    partial = partial_of(target, url, sha256)
    with _disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    with suppress(FileNotFoundError), owned(partial, output=target):
        if not partial.exists() or unless():
            partial.unlink(missing_ok=True)
            _about(partial).unlink(missing_ok=True)
            return None
        kept = _Kept(partial, meter)
        try:
            await _in_thread(kept.open)
            return await _Fetching(client, url, target, name, sha256, size, kept).until_whole()
        finally:
            kept.close()
    return None  # the other process gave it its name at this very moment


class _Fetching:
    """The tries at one file."""

    def __init__(
        self, client: Client, url: str, target: Path, name: str, sha256: str | None, size: int | None, kept: _Kept
    ) -> None:
        self._client, self._url, self._target, self._name = client, url, target, name
        self._sha256, self._size, self._kept = sha256, size, kept

    async def until_whole(self) -> Fetched:
        tries = Tries(self._name, self._client.patience)
        furthest, wrong = self._kept.have, 0
        while True:
            try:
                await self._once()
            except RequestError as failure:
                if self._kept.have >= furthest + self._client.patience.progress:
                    furthest = self._kept.have
                    tries.something_came()
                await tries.rest(failure)
                continue
            digest = self._kept.digest.hexdigest()
            if self._sha256 in (None, digest):
                await _in_thread(lambda: self._kept.give(self._target))
                _remove_others(self._target)
                return Fetched(self._kept.have, digest)
            wrong += 1
            furthest = 0
            await _in_thread(self._kept.discard)
            if wrong > 1:
                what = f"wrong bytes came twice: their SHA-256 is {digest}, the published one {self._sha256}"
                raise RequestError(what, again=False)
            tell(f"{self._name}: wrong bytes came, by their SHA-256; they are thrown away, and fetched once more")

    async def _once(self) -> None:
        """Fetch what is missing.

        Raises:
            RequestError: it broke off, or is not what it should be.
        """
        headers = await self._range()
        async with self._client.ask("GET", self._url, headers, also=416 if headers else None) as response:
            if response.status == 416:
                await self._nothing_missing(response)
                return
            total = await self._begin(response)
            buffer = bytearray()
            most = total if total is not None else self._size
            unstated = self._client.patience.most_unstated
            try:
                async for piece in self._client.pieces(response):
                    buffer += piece
                    if self._kept.have + len(buffer) > (unstated if most is None else most):
                        buffer.clear()
                        raise _UnendingError(most)
                    if len(buffer) >= _BLOCK:
                        block, buffer = bytes(buffer), bytearray()
                        await _in_thread(functools.partial(self._kept.write, block))
            except _UnendingError as error:
                await _in_thread(self._kept.discard)
                limit = f"the {error.most} that it should have" if error.most else f"{unstated}, and no end is stated"
                raise RequestError(f"more bytes came than {limit}", again=False) from None
            finally:
                self._kept.write(bytes(buffer))
            if most is None and self._sha256 is None and not _delimited(response):
                await _in_thread(self._kept.discard)
                what = "the server does not say how long it is, and no checksum is published: it may not be whole"
                raise RequestError(what, again=False)
        if most is not None and self._kept.have != most:
            raise RequestError(f"the answer broke off at byte {self._kept.have} of {most}", again=True)

    async def _range(self) -> dict[str, str]:
        """Return the headers that ask for what is missing; what cannot be continued is thrown away."""
        kept = self._kept
        if not kept.have:
            return {}
        headers = {"Range": f"bytes={kept.have}-"}
        if kept.origin is not None and kept.origin.url == self._url and kept.origin.validator is not None:
            return headers | {"If-Range": kept.origin.validator}
        if self._sha256 is not None:  # in the end the digest tells
            return headers
        await _in_thread(kept.discard)
        return {}

    async def _nothing_missing(self, response: aiohttp.ClientResponse) -> None:
        stated = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", ""))
        if stated is None or int(stated[1]) != self._kept.have:
            await _in_thread(self._kept.discard)
            raise RequestError("the file is shorter than what is here of it; it begins anew", again=True)

    async def _begin(self, response: aiohttp.ClientResponse) -> int | None:
        """Judge the head of an answer, and return the size of the whole file if it is stated."""
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity" and not self._target.name.endswith(".gz"):
            raise RequestError(f"it comes packed as {encoding[:40]!r}, which nobody asked for", again=False)
        length = length_of(response)
        if response.status == 200:  # whole, whatever was asked for
            validator = _validator(response)
            await _in_thread(lambda: self._kept.begin(_Origin(self._url, validator, length)))
            return length
        if response.status != 206 or not self._kept.have:
            raise RequestError(f"the answer is {response.status}, and no file", again=False)
        part = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        before = None if self._kept.origin is None else self._kept.origin.size
        total = None if part is None or part[3] == "*" else int(part[3])
        if part is None or int(part[1]) != self._kept.have or (before is not None and total not in (None, before)):
            await _in_thread(self._kept.discard)
            raise RequestError("the server continues another file; it begins anew", again=True)
        if total is None and length is not None:
            total = self._kept.have + length
        return total


class _UnendingError(Exception):
    def __init__(self, most: int | None) -> None:
        self.most = most


class _Kept:
    """The bytes that are here, their digest, and where they came from; in two hidden files beside the target."""

    def __init__(self, path: Path, meter: Meter) -> None:
        self._path, self._meter = path, meter
        self._about = _about(path)
        self._file: io.FileIO | None = None
        self.digest = hashlib.sha256()
        self.have = 0
        self.origin: _Origin | None = None

    @property
    def _open(self) -> io.FileIO:
        if self._file is None:
            raise AssertionError("it is not open")
        return self._file

    def open(self) -> None:
        """Open the file and digest what is in it."""
        with _disk(self._path):
            self._file = self._path.open("r+b", buffering=0)  # a full disk leaves nothing to be written at the end
            while block := self._file.read(_BLOCK):
                self.digest.update(block)
                self.have += len(block)
        self._meter.came(self.have)
        if self.have:
            try:
                self.origin = _Origin(**read_json(self._about))
            except (OpenIliasError, TypeError):
                self.origin = None

    def begin(self, origin: _Origin) -> None:
        """Begin anew with the bytes of an origin; it is written before the first of them is."""
        self.discard()
        with _disk(self._about):
            write_json(self._about, asdict(origin))
        self.origin = origin

    def write(self, block: bytes) -> None:
        """Add bytes."""
        if not block:
            return
        with _disk(self._path):
            left = memoryview(block)
            while left:
                left = left[self._open.write(left) :]
        self.digest.update(block)
        self.have += len(block)
        self._meter.came(len(block))

    def discard(self) -> None:
        """Throw everything away."""
        with _disk(self._path):
            self._open.seek(0)
            self._open.truncate()
            self._about.unlink(missing_ok=True)
        self._meter.again(self.have)
        self.digest, self.have, self.origin = hashlib.sha256(), 0, None

    def give(self, target: Path) -> None:
        """Give the file its final name."""
        with _disk(target):
            os.fsync(self._open.fileno())
            if target.is_dir():
                raise DiskError("A folder is where this file belongs.", where=target, fix="Move it away.")
            self._path.replace(target)
            sync_folder(target.parent)
            self._about.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; one without bytes is removed."""
        if self._file is not None:
            self._file.close()
        if not self.have:
            self._path.unlink(missing_ok=True)
            self._about.unlink(missing_ok=True)


def _about(partial: Path) -> Path:
    """Return where it is written what the bytes of a partial file came from."""
    return temporary_of(partial.with_name(f"{partial.name.removeprefix('.')}{_ORIGIN}"), "0")


def _remove_others(target: Path) -> None:
    """Remove what killed runs left of other versions of a file, or of the file from other places."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}\.partial")
    for path in [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]:
        with suppress(OpenIliasError, OSError), owned(path):
            path.unlink()
            _about(path).unlink(missing_ok=True)


@contextmanager
def _disk(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"It cannot be written: {error.strerror or error}.",
            where=where,
            fix="Make room or give another --out; what has come is kept, and the same command goes on from there.",
        ) from None


async def _in_thread(work: Callable[[], T]) -> T:
    """Do what waits for the disk or computes without holding up the other downloads."""
    return await asyncio.to_thread(work)


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """Return what a changed file is known by; a weak tag says nothing of the bytes."""
    tag = response.headers.get("ETag")
    if tag is not None and tag.startswith('"'):
        return tag
    return response.headers.get("Last-Modified")


def _delimited(response: aiohttp.ClientResponse) -> bool:
    """Tell whether an answer without a length has an end of its own, other than that of the connection."""
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()
