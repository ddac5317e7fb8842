"""Asking an endpoint that speaks as OpenAI's does: one answer, or why there is none. The key is known only here."""

from __future__ import annotations

import asyncio
import html
import ipaddress
import os
import random
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from openilias.build.caption.questions import Settings
from openilias.core.errors import OpenIliasError
from openilias.core.progress import tell
from openilias.data.http import Patience, RequestError, back_off, retry_after
from openilias.models.quiet import first_line

NO_KEY = "none"
"""The name of the variable for endpoints that ask for no key."""
_MOST_BYTES = 4 * 2**20  # of an answer
_AGAIN = frozenset((408, 409, 425, 429))
_KEEP_GOING = "What was answered is kept, and the same command goes on from there."


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how it is borne with.

    Attributes:
        url: up to where ``/chat/completions`` follows.
        key_env: name of the environment variable that holds the key, or :data:`NO_KEY`.
        parallel: requests at once.
        timeout: seconds that a try may take in all.
        patience: of the tries.
    """

    url: str
    key_env: str = "OPENAI_API_KEY"
    parallel: int = 4
    timeout: float = 120.0
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Refuse addresses that cannot be asked, or that hold a secret: they are recorded."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OpenIliasError(
                "An endpoint is an address that begins with http:// or https://.",
                fix="Give it up to where /chat/completions follows, such as https://HOST/v1",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise OpenIliasError(
                "The address of the endpoint holds more than an address; it would be recorded.",
                fix="Give the key in an environment variable: --key-env NAME",
            )


class BadRequestError(Exception):
    """The endpoint does not want this request, and never will."""

    def __init__(self, status: int, raw: str, said: str) -> None:
        super().__init__(f"the answer is {status}{said}")
        self.raw = raw


@dataclass
class Tried:
    """What became of one request: grows with each try."""

    failures: list[str]
    raw: str = ""


class Asker:
    """A client of an endpoint; used as an asynchronous context."""

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self._endpoint, self._settings = endpoint, settings
        self._openai = _library()
        self._key = _key(endpoint)
        self._shown = None if self._key is None else _shown(self._key)
        self._rest_until = 0.0
        self._client: Any = None

    async def __aenter__(self) -> Self:
        timeout = self._endpoint.timeout
        self._client = self._openai.AsyncOpenAI(
            api_key=self._key or NO_KEY,
            base_url=self._endpoint.url,
            max_retries=0,  # ours are recorded
            timeout=timeout,
            # A redirected question would lose its content, and the key goes nowhere else.
            http_client=self._openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, name: str, messages: list[dict[str, Any]], tried: Tried) -> None:
        """Ask once, and again as long as there is hope; the body of the answer is put into ``tried``.

        Raises:
            RequestError: no answer came.
            BadRequestError: the endpoint does not want this request.
            OpenIliasError: it will not answer any request.
        """
        patience = self._endpoint.patience
        while True:
            await self._rest()
            try:
                tried.raw = await self._once(messages)
                return
            except RequestError as failure:
                tried.failures.append(failure.what)
                failed = len(tried.failures)
                if not failure.again or failed > patience.retries:
                    raise RequestError(failure.what, again=False, status=failure.status, tried=failure.again) from None
                wait = back_off(failed, patience, random.random())  # noqa: S311 - no secret
                if failure.wait is not None:
                    wait = max(wait, min(failure.wait, patience.longest_retry_after))
                    # A busy server means all that ask it.
                    self._rest_until = max(self._rest_until, time.monotonic() + wait)
                tell(f"{name}: {failure.what}; try {failed + 1} of {patience.retries + 1} in {wait:.0f} s")
                await asyncio.sleep(wait)

    async def _rest(self) -> None:
        while (left := self._rest_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _once(self, messages: list[dict[str, Any]]) -> str:
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                return self.hidden(await self._body(messages))
        except RequestError:
            raise
        except self._openai.APIStatusError as error:
            raise self._refused(error) from None
        except (TimeoutError, self._openai.APITimeoutError):
            what = f"no whole answer came within {self._endpoint.timeout:g} s"
            raise RequestError(what, again=True) from None
        except Exception as error:  # whatever the library's connections may raise
            what = self.hidden(first_line(error.__cause__ or error))
            raise RequestError(f"the connection failed: {what}", again=True) from None

    async def _body(self, messages: list[dict[str, Any]]) -> str:
        settings = self._settings
        fields: dict[str, Any] = {settings.limit_field: settings.max_tokens}
        if settings.temperature is not None:
            fields["temperature"] = settings.temperature
        if settings.seed is not None:
            fields["seed"] = settings.seed
        create = self._client.chat.completions.with_streaming_response.create
        body = bytearray()
        async with create(model=settings.model, messages=messages, **fields) as response:
            async for piece in response.iter_bytes():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise RequestError(f"the answer has more than {_MOST_BYTES} bytes", again=False)
        return body.decode("utf-8", "replace")

    def _refused(self, error: Any) -> Exception:
        """Return what an answer with a status of failure means."""
        status = int(error.status_code)
        raw = self.hidden(str(error.response.text)[:_MOST_BYTES])
        told = _told(error, raw)
        where, said = self._endpoint.url, f": {self.hidden(told)}" if told else ""
        if status in (401, 403):
            what = f"The endpoint does not accept the key of {self._endpoint.key_env} ({status}){said}"
            return OpenIliasError(what, where=where, fix=f"Correct the variable, or --key-env. {_KEEP_GOING}")
        if status == 404:
            what = f"The endpoint has no model {self._settings.model!r}, or is not at this address (404){said}"
            return OpenIliasError(what, where=where, fix=f"Correct --model or --endpoint. {_KEEP_GOING}")
        if status == 402 or getattr(error, "code", None) == "insufficient_quota":
            what = f"The endpoint wants to be paid first ({status}){said}"
            return OpenIliasError(what, where=where, fix=_KEEP_GOING)
        if 300 <= status < 400:
            what = f"The endpoint is somewhere else ({status})."
            return OpenIliasError(what, where=where, fix="Give the address that it leads to, if you trust it.")
        if status in _AGAIN or status >= 500:
            wait = retry_after(error.response.headers.get("Retry-After"), datetime.now(UTC))
            return RequestError(f"the answer is {status}{said}", again=True, wait=wait, status=status)
        return BadRequestError(status, raw, said)

    def hidden(self, text: str) -> str:
        """Return a text of the endpoint without the key, which some repeat."""
        return self._shown.sub("[key]", text) if self._shown else text


def _told(error: Any, raw: str) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    words = message if isinstance(message, str) else "" if raw.lstrip().startswith("<") else raw
    return "".join(letter for letter in " ".join(words.split()) if letter.isprintable())[:200]


def check_endpoint(endpoint: Endpoint) -> None:
    """Check that an endpoint can be asked, without asking it; warn where the key would go out readable to all.

    Raises:
        OpenIliasError: the library is not installed, or there is no key.
    """
    _library()
    if _key(endpoint) is not None and not _is_safe(endpoint.url):
        tell(f"{endpoint.url} is no https: the key and the images can be read on the way")


def _is_safe(url: str) -> bool:
    """Tell whether what is sent is encrypted, or stays on this machine or in a private network, by its address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        near = not ipaddress.ip_address(host).is_global
    except ValueError:
        near = "." not in host
    return parts.scheme == "https" or near


def _library() -> Any:
    try:
        import openai
    except ImportError:
        raise OpenIliasError(
            "Asking an endpoint needs the package openai.", fix="pip install 'openilias[captions]'"
        ) from None
    return openai


def _shown(key: str) -> re.Pattern[str]:
    """Return what finds a key also as JSON, HTML and URLs may write its letters."""

    def ways(letter: str) -> str:
        code = ord(letter)
        coded = [rf"\\{{1,2}}u{code:04x}", f"%{code:02x}", f"&#0*{code};", f"&#x0*{code:x};"]
        named = [html.escape(letter)] if letter in "&<>\"'" else []
        return rf"(?:\\{{0,2}}{re.escape(letter)}|(?i:{'|'.join(coded + named)}))"

    return re.compile("".join(map(ways, key)))


def _key(endpoint: Endpoint) -> str | None:
    if endpoint.key_env == NO_KEY:
        return None
    key = os.environ.get(endpoint.key_env, "").strip()
    if not key:
        raise OpenIliasError(
            f"The environment variable {endpoint.key_env} holds no key.",
            fix=f"export {endpoint.key_env}=..., or --key-env {NO_KEY} for an endpoint that asks for none.",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise OpenIliasError(
            f"The environment variable {endpoint.key_env} holds something that is no key.", fix="Set it anew."
        )
    return key
