"""Politeness: how often and how many at a time each host is asked, and what is done when one fails again and again.

A host that sends away, or fails, is left alone as a whole, and not only for the image in question. One that fails many
times in a row is asked whether it still answers at all; if not, everything for it waits, and no row is taken for
failed because of that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from openilias.core.errors import OpenIliasError
from openilias.core.progress import tell
from openilias.data.http import Client, Patience, RequestError, back_off

_MOST_HOSTS = 10_000  # that are remembered
_PUSHED_BACK = frozenset((429, 503))
_NO_HEADS = 501  # an answer of a host that is there and knows no HEAD
_NOT_NOW = frozenset((408, 425, 429))


@dataclass(frozen=True)
class Politeness:
    """How a host is treated.

    Attributes:
        per_host: requests at a time.
        rate: requests per second; None for as many as come.
        failures: in a row, after which it is asked whether it still answers.
        pause: seconds between two such questions.
        give_up: seconds without an answer after which it is given up.
        dead: what happens then: the run stops and nothing is lost, or its images are taken for out of reach.
    """

    per_host: int = 16
    rate: float | None = 50.0
    failures: int = 20
    pause: float = 15.0
    give_up: float = 300.0
    dead: Literal["stop", "pass"] = "stop"


@dataclass
class HostCounts:
    """What was asked of a host in this run: requests, failures of the host among them, bytes that came."""

    requests: int = 0
    failures: int = 0
    bytes: int = 0

    def add(self, other: HostCounts) -> None:
        """Add the counts of another host."""
        self.requests += other.requests
        self.failures += other.failures
        self.bytes += other.bytes


def is_of_the_host(failure: RequestError) -> bool:
    """Tell whether a failure may be one of the host and not of the image."""
    if failure.kind in ("stalled", "connection", "broken"):
        return failure.again
    return failure.status is not None and (failure.status >= 500 or failure.status in _NOT_NOW)


class Host:
    """One host: its turns, and how it has been answering."""

    def __init__(self, name: str, politeness: Politeness, patience: Patience) -> None:
        self.name, self.counts = name, HostCounts()
        self.streak = 0  # failures since its last answer
        self.outages = 0  # times that it was away and came back
        self.given_up = False
        self.witness: str | None = None  # a URL that it has answered
        self.users = 0
        self._politeness, self._patience = politeness, patience
        self._turns = asyncio.Semaphore(politeness.per_host)
        self._up = asyncio.Event()
        self._up.set()
        self._asking = asyncio.Lock()
        self._next = self._held = self._since = 0.0
        self._level = 0  # waves of failures since its last answer

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Give one of the turns, and the time at which it was given."""
        self.users += 1
        try:
            async with self._turns:
                yield asyncio.get_running_loop().time()
        finally:
            self.users -= 1

    async def ready(self) -> None:
        """Wait until a request may be made, and count it."""
        loop = asyncio.get_running_loop()
        while True:
            await self._up.wait()
            now = loop.time()
            start = max(self._held, self._next)
            if start <= now:
                self._next = now + (1 / self._politeness.rate if self._politeness.rate else 0.0)
                self.counts.requests += 1
                return
            await asyncio.sleep(start - now)

    def answered(self, url: str) -> None:
        """Take note of an answer, whatever it was."""
        self.streak = self._level = 0
        self.witness = url

    def failed(self, failure: RequestError, begun: float) -> None:
        """Take note of a failure, and leave the host alone for a while.

        Args:
            failure: what happened.
            begun: when the turn was given. Requests that were under way together fail together, and count once.
        """
        self.counts.failures += 1
        self.streak += 1
        now = asyncio.get_running_loop().time()
        if begun >= self._since:
            self._level, self._since = self._level + 1, now
        level = self._level if failure.status in _PUSHED_BACK else self._level - 1  # a single image may fail alone
        wait = back_off(level, self._patience, random.random()) if level > 0 else 0.0  # noqa: S311 - no secret
        if failure.wait is not None:
            wait = max(wait, min(failure.wait, self._patience.longest_retry_after))
        self._held = max(self._held, now + wait)

    async def still_there(self, client: Client, url: str) -> bool:
        """Find out whether a host that fails answers at all; if not, wait for it while everything for it waits.

        Args:
            client: asks.
            url: asked for if the host has never answered.

        Returns:
            whether it was there all the time; False if it was away and is back, or is given up.

        Raises:
            OpenIliasError: it does not come back.
        """
        outages = self.outages
        async with self._asking:
            if self.streak == 0 or self.given_up:
                return self.outages == outages and not self.given_up
            self._up.clear()
            try:
                return await self._wait_for_it(client, self.witness or url)
            finally:
                self._up.set()

    async def _wait_for_it(self, client: Client, url: str) -> bool:
        loop, politeness = asyncio.get_running_loop(), self._politeness
        begun, patient = loop.time(), True
        while (problem := await _problem(client, url)) is not None:
            if patient:
                patient = False
                tell(f"{self.name} does not answer: {problem}. Everything for it waits.")
            if loop.time() - begun >= politeness.give_up:
                self._give_up(problem)
                return False
            await asyncio.sleep(politeness.pause)
        self.answered(url)
        if not patient:
            self.outages += 1
            self._held = 0.0
            tell(f"{self.name} answers again.")
        return patient

    def _give_up(self, problem: str) -> None:
        if self._politeness.dead == "stop":
            raise OpenIliasError(
                f"{self.name} does not answer: {problem}.",
                fix="Run the same command later, it goes on from here. To go on without: --skip-host "
                f"{urlsplit(f'//{self.name}').hostname}, or --dead-hosts pass.",
            )
        self.given_up = True
        tell(f"{self.name} is given up.")


async def _problem(client: Client, url: str) -> str | None:
    """Say why a host does not answer; None if it does."""
    try:
        async with client.ask("HEAD", url):
            return None
    except RequestError as error:
        return error.what if is_of_the_host(error) and error.status != _NO_HEADS else None


class Hosts:
    """All hosts that are being asked; those that are not any more are forgotten when there are many."""

    def __init__(self, politeness: Politeness, patience: Patience) -> None:
        self._politeness, self._patience = politeness, patience
        self._hosts: dict[str, Host] = {}
        self._gone = HostCounts()
        self._most = _MOST_HOSTS

    def of(self, url: str) -> Host:
        """Return the host of a URL."""
        name = urlsplit(url).netloc.lower()
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= self._most:
                self._forget()
            host = self._hosts[name] = Host(name, self._politeness, self._patience)
        return host

    async def ready(self, url: str) -> None:
        """Wait until the host of a URL may be asked."""
        await self.of(url).ready()

    def counts(self, most: int = 20) -> dict[str, HostCounts]:
        """Return what was asked of the busiest hosts, and of all others together."""
        ordered = sorted(self._hosts.values(), key=lambda host: (-host.counts.requests, host.name))
        found = {host.name: host.counts for host in ordered[:most]}
        others = HostCounts()
        others.add(self._gone)
        for host in ordered[most:]:
            others.add(host.counts)
        return found | ({"others": others} if others.requests else {})

    def _forget(self) -> None:
        for name, host in list(self._hosts.items()):
            if not host.users and not host.streak and not host.given_up:
                self._gone.add(host.counts)
                del self._hosts[name]
        # Not looked through again for each new host, if many are away.
        self._most = max(_MOST_HOSTS, 2 * len(self._hosts))
