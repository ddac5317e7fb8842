"""A web server in threads whose every answer can be made to fail, in the order that a test says."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

Fault = Callable[["Handler", bytes], None]


class FaultyServer:
    """Serves ``files`` (path -> bytes), with ranges, as Apache does.

    ``faults[path]`` holds what is done to the next GETs of a path, one each, then it answers well; ``always[path]`` is
    done to all of them, HEADs included where ``heads`` is true. ``log`` holds (method, path, Range, If-Range).
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.heads: dict[str, Fault] = {}
        self.log: list[tuple[str, str, str | None, str | None]] = []
        self.over = threading.Event()
        outer = self

        class Own(Handler):
            server_of = outer

        self._server = _Server(("127.0.0.1", 0), Own)
        self._server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def gets(self, path: str) -> list[tuple[str | None, str | None]]:
        """Range and If-Range of every GET of a path."""
        return [
            (ranged, condition) for method, asked, ranged, condition in self.log if (method, asked) == ("GET", path)
        ]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # with the usual 5, connections that come together wait for a second or three


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: FaultyServer

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self._note()
        fault = self.server_of.heads.get(self.path)
        if fault is not None:
            fault(self, self.server_of.files.get(self.path, b""))
        else:
            self.well(body=False)

    def do_GET(self) -> None:
        self._note()
        data = self.server_of.files.get(self.path, b"")
        waiting = self.server_of.faults[self.path]
        try:
            if waiting:
                waiting.pop(0)(self, data)
            elif self.path in self.server_of.always:
                self.server_of.always[self.path](self, data)
            else:
                self.well()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _note(self) -> None:
        self.server_of.log.append((self.command, self.path, self.headers["Range"], self.headers["If-Range"]))

    def start(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        more = self.server_of.headers.get(self.path, {})
        for name, value in ({name.replace("_", "-"): value for name, value in headers.items()} | more).items():
            self.send_header(name, value)
        self.end_headers()

    def well(self, *, body: bool = True) -> None:
        data = self.server_of.files.get(self.path)
        if data is None:
            self.start(404, 0)
            return
        tag = tag_of(data)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        condition = self.headers["If-Range"]
        if asked and body and condition in (None, tag):
            first = int(asked[1])
            if first >= len(data):
                self.start(416, 0, Content_Range=f"bytes */{len(data)}")
                return
            stated = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.start(206, len(data) - first, ETag=tag, Content_Range=stated)
            self.wfile.write(data[first:])
            return
        self.start(200, len(data), ETag=tag, Accept_Ranges="bytes")
        if body:
            self.wfile.write(data)

    def reset(self) -> None:
        """End the connection with a reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def tag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def first_of(handler: Handler, data: bytes) -> int:
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
    return int(asked[1]) if asked and handler.headers["If-Range"] in (None, tag_of(data)) else 0


def part_of(handler: Handler, data: bytes, count: int) -> None:
    """Send a right head and ``count`` bytes of what is asked for."""
    first = first_of(handler, data)
    stated = {"Content_Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}
    handler.start(206 if first else 200, len(data) - first, ETag=tag_of(data), **stated)
    handler.wfile.write(data[first : first + count])
    handler.wfile.flush()


def resets(count: int) -> Fault:
    def fault(handler: Handler, data: bytes) -> None:
        part_of(handler, data, count)
        time.sleep(0.05)  # a reset overtakes what was sent
        handler.reset()

    return fault


def truncates(count: int) -> Fault:
    def fault(handler: Handler, data: bytes) -> None:
        part_of(handler, data, count)
        time.sleep(0.05)  # what has come and was not read is lost with the connection
        handler.close_connection = True

    return fault


def stalls(count: int) -> Fault:
    def fault(handler: Handler, data: bytes) -> None:
        part_of(handler, data, count)
        handler.server_of.over.wait(20)
        handler.close_connection = True

    return fault


def stalls_before_the_head(handler: Handler, data: bytes) -> None:
    handler.server_of.over.wait(20)
    handler.close_connection = True


def drips(handler: Handler, data: bytes) -> None:
    """A byte now and then: no read ever times out."""
    part_of(handler, data, 0)
    for place in range(200):
        handler.wfile.write(data[place : place + 1])
        handler.wfile.flush()
        if handler.server_of.over.wait(0.05):
            break
    handler.close_connection = True


def slowly(piece: int, pause: float) -> Fault:
    def fault(handler: Handler, data: bytes) -> None:
        first = first_of(handler, data)
        part_of(handler, data, 0)
        for place in range(first, len(data), piece):
            handler.wfile.write(data[place : place + piece])
            handler.wfile.flush()
            time.sleep(pause)

    return fault


def says(status: int, **headers: str) -> Fault:
    def fault(handler: Handler, data: bytes) -> None:
        handler.start(status, 0, **headers)

    return fault


def serves(other: bytes) -> Fault:
    """Other bytes than those of the file."""

    def fault(handler: Handler, data: bytes) -> None:
        handler.start(200, len(other), ETag=tag_of(other))
        handler.wfile.write(other)

    return fault


def ignores_ranges(handler: Handler, data: bytes) -> None:
    handler.start(200, len(data))
    handler.wfile.write(data)


def ignores_ranges_and_resets(count: int) -> Fault:
    def fault(handler: Handler, data: bytes) -> None:
        handler.start(200, len(data))
        handler.wfile.write(data[:count])
        handler.wfile.flush()
        time.sleep(0.05)
        handler.reset()

    return fault


def endless(handler: Handler, data: bytes) -> None:
    handler.start(200, None, Transfer_Encoding="chunked")
    while not handler.server_of.over.is_set():
        handler.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def chunked(handler: Handler, data: bytes) -> None:
    handler.start(200, None, Transfer_Encoding="chunked")
    for place in range(0, len(data), 50_000):
        piece = data[place : place + 50_000]
        handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")


def without_end(count: int | None = None) -> Fault:
    """No length, and the end of the connection is the end of the body."""

    def fault(handler: Handler, data: bytes) -> None:
        handler.start(200, None, Connection="close")
        handler.wfile.write(data[:count])
        handler.close_connection = True

    return fault


def garbage(handler: Handler, data: bytes) -> None:
    handler.wfile.write(b"this is no HTTP\r\n\r\n")
    handler.close_connection = True
