"""A fake endpoint of an OpenAI-compatible server, in threads, whose every answer can be made to fail in turn."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    """A request as it came: the path, the headers in small letters, the body as JSON, and when (monotonic)."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float

    @property
    def words(self) -> str | None:
        """What the user message says beside the image."""
        parts = self.body["messages"][-1]["content"]
        return next((part["text"] for part in parts if part["type"] == "text"), None)

    @property
    def picture(self) -> str:
        """The data URL of the image."""
        parts = self.body["messages"][-1]["content"]
        return str(next(part["image_url"]["url"] for part in parts if part["type"] == "image_url"))


Answer = Callable[["Handler", Request], None]


class FakeEndpoint:
    """Answers ``POST /v1/chat/completions``; ``base`` is what ``--endpoint`` takes.

    ``script`` holds what is done to the next requests, one each, in the order in which they come; then ``always`` is
    done, or else they are answered well. ``requests`` holds all of them.
    """

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.always: Answer = answers()
        self.requests: list[Request] = []
        self.over = threading.Event()
        self.busy = self.most_busy = 0
        self._lock = threading.Lock()
        outer = self

        class Own(Handler):
            endpoint = outer

        self._server = Quiet(("127.0.0.1", 0), Own)
        self._server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            self.busy += 1
            self.most_busy = max(self.busy, self.most_busy)
            return self.script.pop(0) if self.script else self.always

    def done(self) -> None:
        with self._lock:
            self.busy -= 1


class Quiet(ThreadingHTTPServer):
    """Connections that clients cut off are nothing to tell."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    endpoint: FakeEndpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, json.loads(data), time.monotonic())
        answer = self.endpoint.take(request)
        try:
            if self.path != "/v1/chat/completions":
                says(404)(self, request)
            else:
                answer(self, request)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.endpoint.done()

    def send(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass


def completion(text: Any, *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """The body of an answer."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake-vlm-2026-01-01",
        "system_fingerprint": "fp_fake",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 400, "completion_tokens": 20, "total_tokens": 420},
    }


def answers(text: Any = None, **more: Any) -> Answer:
    """Answer well: by default with a text that tells the category and the length of the image."""

    def answer(handler: Handler, request: Request) -> None:
        said = f"A thing of {request.words}, {len(request.picture)} letters." if text is None else text
        handler.send(200, json.dumps(completion(said, **more)).encode())

    return answer


def sends(body: bytes, kind: str = "application/json", status: int = 200) -> Answer:
    return lambda handler, request: handler.send(status, body, kind)


def says(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Answer:
    body = json.dumps({"error": {"message": message, "code": code, "type": "error"}}).encode()
    return lambda handler, request: handler.send(status, body, **headers)


def repeats_the_key(status: int) -> Answer:
    """Tell everything that was said, the key too, as careless servers do."""

    def answer(handler: Handler, request: Request) -> None:
        says(status, f"Incorrect API key provided: {request.headers['authorization']}")(handler, request)

    return answer


def slow(seconds: float, then: Answer | None = None) -> Answer:
    def answer(handler: Handler, request: Request) -> None:
        handler.endpoint.over.wait(seconds)
        (then or answers())(handler, request)

    return answer


def drips(handler: Handler, request: Request) -> None:
    """A space now and then: no read ever times out."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    while not handler.endpoint.over.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def endless(handler: Handler, request: Request) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while not handler.endpoint.over.is_set():
        handler.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def drops(handler: Handler, request: Request) -> None:
    """Close the connection without a word."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def breaks_off(handler: Handler, request: Request) -> None:
    """Send half of an answer."""
    body = json.dumps(completion("A half")).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(2 * len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()
    handler.close_connection = True
