"""A real HTTP server on this machine that answers as told by the path: properly, or wrongly in every way known."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any


@dataclass(frozen=True)
class Request:
    """What arrived."""

    path: str
    headers: dict[str, str]
    body: Any
    time: float


@dataclass
class JudgeServer:
    """`server.url("slow")` behaves as the method `slow` says; `script` names what "scripted" does, request by request.

    `answer` is what a proper answer is made of, from the request's body.
    """

    answer: Callable[[Any], Any] = field(default=lambda body: {"status": "correct", "reward": 1.0, "reason": "fine"})
    script: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    context: ssl.SSLContext | None = None
    raw: bytes = b""  # what "bytes_as_they_are" sends
    most_at_once: int = 0  # requests that "slow" held at one time

    def __enter__(self) -> JudgeServer:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._stopped, self._lock, self._now = threading.Event(), threading.Lock(), 0
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *what: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def url(self, behaviour: str = "proper") -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}/{behaviour}"

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.closing(connection):
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            request = _read(connection)
            self.requests.append(request)
            name = request.path.strip("/").partition("/")[0]
            if name == "scripted":
                name = self.script[min(len(self.requests), len(self.script)) - 1]
            getattr(self, name)(connection, request)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            connection.close()

    # Behaviours ------------------------------------------------------------------------------------------------------

    def proper(self, connection: socket.socket, request: Request) -> None:
        reply(connection, json.dumps(self.answer(request.body)).encode())

    def chunked(self, connection: socket.socket, request: Request) -> None:
        body = json.dumps(self.answer(request.body)).encode()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")

    def old(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(self.answer(request.body)).encode())

    def plain_text(self, connection: socket.socket, request: Request) -> None:
        reply(connection, json.dumps(self.answer(request.body)).encode(), headers=["Content-Type: text/plain"])

    def slow(self, connection: socket.socket, request: Request) -> None:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        self._stopped.wait(0.3)
        with self._lock:
            self._now -= 1
        self.proper(connection, request)

    def silent(self, connection: socket.socket, request: Request) -> None:
        self._stopped.wait(30)

    def drip(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not self._stopped.wait(0.05):
            connection.sendall(b" ")

    def drip_headers(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not self._stopped.wait(0.05):
            connection.sendall(b"x")

    def error_500(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"the judge\nfell over", "500 Internal Server Error")

    def error_503(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"", "503 Service Unavailable")

    def error_500_drip(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\n")
        while not self._stopped.wait(0.05):
            connection.sendall(b"x")

    def error_400(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b'{"detail": "no field named text"}', "400 Bad Request")

    def error_401(self, connection: socket.socket, request: Request) -> None:
        reply(connection, f"bad credentials: {request.headers.get('authorization')}".encode(), "401 Unauthorized")

    def error_404(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"<html>not here</html>", "404 Not Found")

    def busy(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"", "429 Too Many Requests", ["Retry-After: 1"])

    def busy_date(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"", "429 Too Many Requests", [f"Retry-After: {formatdate(time.time() + 2, usegmt=True)}"])

    def busy_for_long(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"", "429 Too Many Requests", ["Retry-After: 86400"])

    def busy_nonsense(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"", "429 Too Many Requests", ["Retry-After: soon"])

    def closed(self, connection: socket.socket, request: Request) -> None:
        pass

    def reset(self, connection: socket.socket, request: Request) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    def half(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"status": "cor')

    def half_chunk(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"status": "cor')

    def half_json(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b'{"status": "cor')

    def html(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"<html><body>Please log in</body></html>", headers=["Content-Type: text/html"])

    def binary(self, connection: socket.socket, request: Request) -> None:
        reply(connection, bytes(range(256)) * 4)

    def empty(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"")

    def nested(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"[" * 100_000)

    def not_a_number(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b'{"reward": NaN}')

    def endless_number(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b'{"reward": ' + b"9" * 10_000 + b"}")

    def huge(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not self._stopped.is_set():
            connection.sendall(b" " * 65536)

    def huge_announced(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while not self._stopped.is_set():
            connection.sendall(b" " * 65536)

    def huge_headers(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n")

    def gzip_bomb(self, connection: socket.socket, request: Request) -> None:
        reply(connection, gzip.compress(b" " * 10_000_000, 1), headers=["Content-Encoding: gzip"])

    def redirect(self, connection: socket.socket, request: Request) -> None:
        reply(connection, b"", "302 Found", [f"Location: {self.url('proper')}"])

    def not_http(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(b"220 mail.example.org ESMTP ready\r\n")

    def bytes_as_they_are(self, connection: socket.socket, request: Request) -> None:
        connection.sendall(self.raw)

    def interim(self, connection: socket.socket, request: Request) -> None:
        while not self._stopped.wait(0.01):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def reply(connection: socket.socket, body: bytes, status: str = "200 OK", headers: list[str] | None = None) -> None:
    """A complete answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *(headers or [])]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def _read(connection: socket.socket) -> Request:
    connection.settimeout(20)
    raw = b""
    while b"\r\n\r\n" not in raw:
        more = connection.recv(65536)
        if not more:
            raise ValueError("no request")
        raw += more
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Request(path=first.split()[1], headers=headers, body=json.loads(body), time=time.monotonic())


@contextlib.contextmanager
def serving(answer: Callable[[Any], Any] | None = None) -> Iterator[JudgeServer]:
    """A running server."""
    with JudgeServer(answer=answer) if answer else JudgeServer() as server:
        yield server


def chat(content: object, finish: str = "stop") -> dict[str, Any]:
    """An OpenAI-compatible answer."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}]}
