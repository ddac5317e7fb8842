"""Asking servers that stall, break off, are busy or lie: one request, what its failure means, and when to try again."""

from __future__ import annotations

import asyncio
import random
import re
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from openilias import __version__
from openilias.core.progress import tell
from openilias.data.addresses import Guard, GuardedResolver, RefusedAddressError

T = TypeVar("T")
_BUSY = frozenset((408, 425, 429, 500, 502, 503, 504))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_LEAST = 1024  # bytes that must come within the stall time: a server that drips has stalled


@dataclass(frozen=True)
class Patience:
    """How long a server is borne with.

    Attributes:
        retries: tries after the first one; they begin anew when something has come.
        stall: seconds in which something must come.
        first_wait, longest_wait: seconds before the first retry, and at most; they double in between.
        longest_retry_after: seconds of waiting that a server may ask for.
        redirects: how many are followed.
        progress: bytes that are something.
        most_unstated: bytes at most of a file whose size nobody states.
    """

    retries: int = 5
    stall: float = 60.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 600.0
    redirects: int = 10
    progress: int = 2**20
    most_unstated: int = 2**36


RequestFailure = Literal["answer", "refused", "stalled", "connection", "broken"]
"""What kind of failure: by its status, not asked for at all, too slow, no connection, an answer that broke off."""


class RequestError(Exception):
    """A request failed.

    Args:
        what: in words, without a full stop.
        again: whether it may succeed later.
        wait: seconds after which the server wants to be asked again.
        status: of the answer, if there was one.
        tried: it was tried as often as it may be, and might succeed another time.
        kind: what failed.
    """

    def __init__(
        self,
        what: str,
        *,
        again: bool,
        wait: float | None = None,
        status: int | None = None,
        tried: bool = False,
        kind: RequestFailure = "answer",
    ) -> None:
        what = "".join(letter if letter.isprintable() else "?" for letter in what)  # servers have their say in it
        super().__init__(what)
        self.what, self.again, self.wait, self.status = what, again, wait, status
        self.tried, self.kind = tried, kind


def retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, as a number or as a date; None if it does not."""
    if text is None:
        return None
    text = text.strip()
    if re.fullmatch(r"[0-9]+", text):
        return float(text)  # inf, if it is a joke
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def back_off(failed: int, patience: Patience, chance: float) -> float:
    """Return the seconds to wait after so many failures: doubled each time, half of it by ``chance`` in [0, 1).

    Without chance all who were sent away together would come back together.
    """
    longest = min(patience.longest_wait, patience.first_wait * 2.0 ** min(failed - 1, 60))
    return longest * (0.5 + 0.5 * chance)


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work, also where a loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class Tries:
    """The tries of one piece of work."""

    def __init__(self, name: str, patience: Patience) -> None:
        self._name, self._patience = name, patience
        self._failed = 0

    def something_came(self) -> None:
        """Begin to count anew."""
        self._failed = 0

    async def rest(self, failure: RequestError) -> None:
        """Wait for the next try.

        Raises:
            RequestError: there is none.
        """
        self._failed += 1
        patience = self._patience
        if not failure.again:
            raise failure
        if self._failed > patience.retries:
            tries = "1 try" if self._failed == 1 else f"{self._failed} tries"
            raise RequestError(f"{failure.what} ({tries})", again=False, status=failure.status, tried=True)
        wait = back_off(self._failed, patience, random.random())  # noqa: S311 - no secret
        if failure.wait is not None:
            wait = max(wait, min(failure.wait, patience.longest_retry_after))
        tell(f"{self._name}: {failure.what}; try {self._failed + 1} of {patience.retries + 1} in {wait:.0f} s")
        await asyncio.sleep(wait)


class Client:
    """Connections to servers under one guard; used as an asynchronous context."""

    def __init__(self, guard: Guard, patience: Patience, *, connections: int) -> None:
        self.patience = patience
        # The user named the proxies too, and they are on private networks as a rule.
        self._proxies = _proxies()
        proxies = frozenset(name for proxy in self._proxies.values() if (name := urlsplit(proxy).hostname) is not None)
        self._guard = Guard(guard.hosts | proxies, guard.kinds)
        self._asked = guard
        self._connections = connections

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, resolver=GuardedResolver(self._guard)),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.patience.stall, sock_read=self.patience.stall),
            headers={"User-Agent": f"openilias/{__version__}", "Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        await self._session.close()

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        also: int | None = None,
        before: Callable[[str], Awaitable[None]] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make one request and follow its redirects; what goes wrong in the block with the network is translated.

        Args:
            method: GET or HEAD.
            url: where.
            headers: of the request, and of those that it is redirected to.
            also: a status of 400 or more that is an answer too.
            before: awaited with each URL, also of redirects, before it is asked for: politeness.

        Raises:
            RequestError: no answer, an answer that is none, or it broke off; or a redirect that is refused.
        """
        try:
            for _ in range(self.patience.redirects + 1):
                target = self._checked(url)
                if before is not None:
                    await before(url)
                async with asyncio.timeout(self.patience.stall):
                    response = await self._session.request(
                        method, target, headers=headers, allow_redirects=False, proxy=self._proxy_of(url)
                    )
                async with response:
                    if response.status in _REDIRECTS:
                        url = _redirected(url, response)
                        continue
                    if response.status >= 400 and response.status != also:
                        raise _refusal(response)
                    yield response
                    return
            raise RequestError(f"more than {self.patience.redirects} redirects", again=False, kind="refused")
        except RefusedAddressError as error:
            raise RequestError(f"refused: {error}", again=False, kind="refused") from None
        except TimeoutError:
            what = f"nothing came for {self.patience.stall:g} s"
            raise RequestError(what, again=True, kind="stalled") from None
        except aiohttp.ClientConnectorCertificateError as error:
            what = f"its certificate is not valid: {error.certificate_error}"
            raise RequestError(what, again=False, kind="connection") from None
        except aiohttp.InvalidURL:
            raise RequestError(f"{url[:120]!r} is no URL", again=False, kind="refused") from None
        except aiohttp.ClientPayloadError:
            raise RequestError("the answer broke off", again=True, kind="broken") from None
        except aiohttp.ClientResponseError as error:
            raise RequestError(f"the answer is no HTTP: {error.message[:120]}", again=True, kind="broken") from None
        except (aiohttp.ClientError, OSError) as error:
            what = f"the connection failed: {error or type(error).__name__}"
            raise RequestError(what, again=True, kind="connection") from None

    def _checked(self, url: str) -> URL:
        """Return a URL as it is asked for, judged in both spellings: other digits and dots of Unicode become plain.

        Raises:
            RefusedAddressError: it must not be asked for.
        """
        self._asked.check(url)
        try:
            target = _as_it_is(url)
        except ValueError:  # a host that no name can be made of
            raise RefusedAddressError(f"{url[:120]!r} is no URL") from None
        self._asked.check(str(target))
        return target

    def _proxy_of(self, url: str) -> str | None:
        """Return the proxy that the environment names for a URL."""
        parts = urlsplit(url)
        proxy = self._proxies.get(parts.scheme)
        if proxy is None or parts.hostname is None or urllib.request.proxy_bypass(parts.hostname):
            return None
        return proxy

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            TimeoutError: too little comes; :meth:`ask` translates it.
        """
        loop, stall = asyncio.get_running_loop(), self.patience.stall
        came = 0
        deadline = loop.time() + stall
        while True:
            async with asyncio.timeout_at(deadline):
                piece = await response.content.readany()
            if not piece:
                return
            came += len(piece)
            yield piece
            if came >= _LEAST:  # what the reader did meanwhile does not count against the server
                came, deadline = 0, loop.time() + stall

    async def text(self, url: str, *, name: str, most: int) -> tuple[str, Mapping[str, str]]:
        """Return a small text and the headers it came with.

        Args:
            url: where.
            name: of it, in messages.
            most: bytes at most.

        Raises:
            RequestError: it does not come, is larger, or is no UTF-8.
        """

        async def once() -> tuple[str, Mapping[str, str]]:
            data = bytearray()
            async with self.ask("GET", url) as response:
                async for piece in self.pieces(response):
                    data += piece
                    if len(data) > most:
                        raise RequestError(f"it has more than {most} bytes", again=False)
                headers = response.headers
            try:
                return data.decode("utf-8-sig"), headers
            except UnicodeDecodeError:
                raise RequestError("it is no text", again=False) from None

        return await self.patiently(once, name=name)

    async def size(self, url: str, *, name: str) -> int | None:
        """Return the bytes of a file, None if the server does not say.

        Raises:
            RequestError: there is no such file, or no answer.
        """

        async def once() -> int | None:
            async with self.ask("HEAD", url) as response:
                return length_of(response)

        try:
            return await self.patiently(once, name=name)
        except RequestError as error:
            if error.status in (400, 403, 405, 501):  # those who do not like to be asked so, signed URLs among them
                return None
            raise

    async def patiently(self, once: Callable[[], Awaitable[T]], *, name: str) -> T:
        """Do something until it succeeds or there is no use in it.

        Raises:
            RequestError: it fails for good.
        """
        tries = Tries(name, self.patience)
        while True:
            try:
                return await once()
            except RequestError as failure:
                await tries.rest(failure)


def length_of(response: aiohttp.ClientResponse) -> int | None:
    """Return the length of the body that an answer states."""
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _refusal(response: aiohttp.ClientResponse) -> RequestError:
    status = response.status
    wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC)) if status in (429, 503) else None
    return RequestError(
        f"{status} {(response.reason or '')[:60]}".strip(), again=status in _BUSY, wait=wait, status=status
    )


def _redirected(url: str, response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location")
    if not location:
        raise RequestError(f"{response.status} without an address", again=False, kind="refused")
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
    except ValueError:
        raise RequestError(f"refused: {location[:120]!r} is no URL", again=False, kind="refused") from None
    if urlsplit(url).scheme == "https" and scheme == "http":
        what = f"refused: a redirect from https to http, {target[:120]}"
        raise RequestError(what, again=False, kind="refused")
    return target


def _as_it_is(url: str) -> URL:
    """Leave the spelling of a URL alone where that is possible: signatures depend on it."""
    return URL(url, encoded=url.isascii() and " " not in url)


def _proxies() -> dict[str, str]:
    """Return scheme -> URL of the proxies that the environment names."""
    named = {scheme: urllib.request.getproxies().get(scheme) for scheme in ("http", "https")}
    return {scheme: url if "://" in url else f"http://{url}" for scheme, url in named.items() if url}
