"""One row of a table: its URLs one after the other, until one gives an image that can be stored."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import aiohttp

from openilias.build.ingest.decoders import Decoders
from openilias.build.ingest.hosts import Host, Hosts, Politeness, is_of_the_host
from openilias.build.ingest.settings import IngestSettings
from openilias.build.ingest.statuses import FOR_A_TIME
from openilias.build.normalise import Normalised
from openilias.build.stored import STORED, StoredImage
from openilias.build.tables.rows import Bad, Row
from openilias.data.addresses import Guard, RefusedAddressError, host_of
from openilias.data.http import Client, Patience, RequestError, back_off, length_of

_PLACEHOLDER = re.compile(r"photo_(?:unavailable|not_available)[a-z0-9_.]*\.(?:gif|png|jpe?g)", re.IGNORECASE)
"""What Flickr shows in place of a photo that is gone, by the last part of its address."""
_MOST_NOTES = 10_000  # letters


@dataclass(frozen=True)
class Access:
    """How images are fetched; nothing of it changes what is stored.

    Attributes:
        politeness: towards hosts.
        patience: retries and time-outs of a request.
        connections: images that are asked for at a time.
        seconds: that an image may take to come, from its request on.
        allowed: private hosts that may be asked.
        rewrite: beginnings of URLs -> what takes their place when they are asked for; the table keeps the URL.
        skipped: hosts that are not asked.
    """

    politeness: Politeness = field(default_factory=Politeness)
    patience: Patience = field(default_factory=lambda: Patience(retries=4, stall=30.0))
    connections: int = 64
    seconds: float = 120.0
    allowed: frozenset[str] = frozenset()
    rewrite: Mapping[str, str] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()

    def client(self) -> Client:
        """Return a new client that may reach public addresses and the hosts that were named."""
        return Client(Guard(self.allowed), self.patience, connections=self.connections)


class FailedError(Exception):
    """A URL gives no image.

    Args:
        status: of :data:`~openilias.build.ingest.statuses.STATUSES`.
        what: in words that are the same whenever it fails so; empty if there is nothing to add.
    """

    def __init__(self, status: str, what: str = "") -> None:
        super().__init__(status)
        self.status, self.what = status, what


class Fetcher:
    """Fetches rows."""

    def __init__(
        self, client: Client, decoders: Decoders, hosts: Hosts, settings: IngestSettings, access: Access
    ) -> None:
        self._client, self._decoders, self._hosts = client, decoders, hosts
        self._settings, self._access = settings, access

    async def row(self, row: Row) -> tuple[StoredImage, bytes]:
        """Return what becomes of a row, and the bytes of its image if it is stored.

        Raises:
            OpenIliasError: a host does not answer any more.
        """
        known = of_table(row)
        notes = []
        found = replace(known, status="skipped")
        for url in row.urls:
            try:
                made = await self._image(url)
            except FailedError as failure:
                found = replace(known, status=failure.status, url=url)
                notes.append(f"{url}: {failure.status}" + (f" ({failure.what})" if failure.what else ""))
                if failure.status in FOR_A_TIME and self._settings.second == "gone":
                    break
                continue
            if made is None:
                continue
            return _stored(known, url, made, notes), made.jpeg
        return replace(found, notes=_told(notes)), b""

    async def _image(self, url: str) -> Normalised | None:
        """Return the image of a URL; None if its host is left out."""
        try:
            asked = self._rewritten(url)
            if {host_of(url), host_of(asked)} & self._access.skipped:
                return None
        except RefusedAddressError as error:
            raise FailedError("refused", str(error)) from None
        made = await self._decoders(await self._bytes(asked), self._settings.normalise)
        if isinstance(made, Normalised):
            return made
        raise FailedError(made.status, made.what.rstrip("."))

    def _rewritten(self, url: str) -> str:
        for start, other in self._access.rewrite.items():
            if url.startswith(start):
                return other + url.removeprefix(start)
        return url

    async def _bytes(self, url: str) -> bytes:
        """Return what a URL gives, after as many tries as it takes."""
        host, patience = self._hosts.of(url), self._access.patience
        tries = 0
        while True:
            async with host.turn() as begun:
                if host.given_up:
                    raise FailedError("no-connection", "its host was given up")
                try:
                    data = await self._once(url, host)
                    host.answered(url)
                    return data
                except FailedError:
                    host.answered(url)
                    raise
                except RequestError as error:
                    failure = error
            if is_of_the_host(failure):
                host.failed(failure, begun)
            elif failure.status is not None:
                host.answered(url)
            if not failure.again:
                raise FailedError(*_status_of(failure))
            tries += 1
            spent = tries > patience.retries
            # Nothing else has come from it since this row was first asked for: is it the image, or the host?
            doubtful = spent and host.witness is not None and host.streak >= tries
            doubtful = doubtful or host.streak >= self._access.politeness.failures
            if doubtful and not await host.still_there(self._client, url):
                tries = 0
                continue
            if spent:
                raise FailedError(*_status_of(failure))
            await asyncio.sleep(back_off(tries, patience, random.random()))  # noqa: S311 - no secret

    async def _once(self, url: str, host: Host) -> bytes:
        """Ask once.

        Raises:
            RequestError: no answer, or one that is none.
            FailedError: an answer that is no image.
        """
        most, begun = self._settings.most_bytes, False
        data = bytearray()
        try:
            async with asyncio.timeout(None) as clock:

                async def before(asked: str) -> None:
                    clock.reschedule(None)  # to wait for one's turn takes no time of the image
                    await self._hosts.ready(asked)
                    clock.reschedule(asyncio.get_running_loop().time() + self._access.seconds)

                async with self._client.ask("GET", url, before=before) as response:
                    begun = True
                    _judge(response, most)
                    async for piece in self._client.pieces(response):
                        data += piece
                        host.counts.bytes += len(piece)
                        if len(data) > most:
                            raise FailedError("too-large", f"more than {most} bytes")
        except TimeoutError:
            # So slow, or so endless, that asking again at once would only hold a connection.
            raise FailedError("timeout", "no end came") from None
        except RequestError as error:
            if begun and error.kind == "connection":  # whether it was reset or closed is a matter of microseconds
                raise RequestError(error.what, again=True, kind="broken") from None
            raise
        return bytes(data)


def _judge(response: aiohttp.ClientResponse, most: int) -> None:
    """Judge an answer by its head.

    Raises:
        FailedError: there will be no image.
    """
    if _PLACEHOLDER.fullmatch(response.url.path.rpartition("/")[2]):
        raise FailedError("gone", "the picture that says so")
    if response.status != 200:
        raise FailedError("http-error", str(response.status))
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise FailedError("refused", "it is packed, which nobody asked for")
    length = length_of(response)
    if length is not None and length > most:
        raise FailedError("too-large", f"more than {most} bytes")


def _status_of(failure: RequestError) -> tuple[str, str]:
    """Return the status of a row, and what else is the same whenever it fails so."""
    status = failure.status
    if failure.kind == "refused":
        return "refused", failure.what.removeprefix("refused: ")
    if status is None:
        words = {"stalled": "timeout", "connection": "no-connection", "broken": "broken-off"}
        return words.get(failure.kind, "broken-off"), ""
    if status in (404, 410):
        return "gone", str(status)
    if status in (401, 403):
        return "forbidden", str(status)
    if status in (408, 425, 429):
        return "busy", str(status)
    return ("server-error" if status >= 500 else "http-error"), str(status)


def of_table(row: Row) -> StoredImage:
    """Return what a table says of a row."""
    return StoredImage(
        id=row.id,
        status="skipped",
        licence=row.licence,
        licence_url=row.licence_url,
        author=row.author,
        page_url=row.page_url,
        camera=row.camera,
        taken=row.taken,
        where=place(row),
    )


def of_bad(row: Bad) -> StoredImage:
    """Return what is kept of a record that cannot be used; where it stands takes the place of an id."""
    return StoredImage(id=place(row), status="bad-row", notes=row.reason, where=place(row))


def place(row: Row | Bad) -> str:
    """Return file and line of a row, without the folder, which is nobody's business."""
    return row.where.rpartition("/")[2]


def _told(notes: list[str]) -> str | None:
    """Join notes; a row may have any number of URLs, and a spool and a table have to hold them."""
    text = "; ".join(notes)
    return (text if len(text) <= _MOST_NOTES else f"{text[:_MOST_NOTES]}...") or None


def _stored(known: StoredImage, url: str, made: Normalised, notes: list[str]) -> StoredImage:
    return replace(
        known,
        status=STORED,
        url=url,
        camera=made.camera or known.camera,
        taken=made.taken or known.taken,
        width=made.width,
        height=made.height,
        original_width=made.original_size[0],
        original_height=made.original_size[1],
        format=made.format,
        bytes=len(made.jpeg),
        sha256=made.sha256,
        hash=made.hash,
        reencoded=made.reencoded,
        notes=_told([*notes, *made.notes]),
    )
