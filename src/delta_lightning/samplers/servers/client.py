"""HTTP to one server: JSON both ways, streams of events, one error for everything that can go wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

CONNECT_SECONDS = 10.0  # longest wait for a connection, however long the answer may take
SHOWN = 300  # characters of an answer that a reason shows
MOST_BYTES = 1 << 28  # of one answer, and of one line of a stream
_EVENT = b"data:"
_END = b"[DONE]"


class ServerError(Exception):
    """A server did not do what it was asked.

    Args:
        url: of the server. asked: method and path. reason: one line. status: of HTTP, None where none came.
    """

    def __init__(self, url: str, asked: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"{url} ({asked}): {reason}")
        self.url, self.asked, self.reason, self.status = url, asked, reason, status


class Call:
    """One exchange that another thread may cut off."""

    def __init__(self) -> None:
        self._lock, self.cancelled = threading.Lock(), False
        self._socket: socket.socket | None = None

    def cancel(self) -> None:
        """Closes the connection: the exchange ends in `ServerError`, and the server drops the request."""
        with self._lock:
            self.cancelled = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it may be closed already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def attach(self, sock: socket.socket | None) -> None:
        """The connection in use, None when it is about to be closed. Raises `ConnectionAbortedError` if cancelled before."""
        with self._lock:
            self._socket = sock
            if sock is not None and self.cancelled:
                raise ConnectionAbortedError("cancelled")


class Client:
    """Asks one server. Without state between requests, so that threads may share it.

    Args:
        url: http:// or https://, host, port, and a path to put before all others if there is one.
        timeout: longest silence, seconds: to connect, to send, and between two pieces of an answer.
        api_key: sent as a bearer token; it never stands in an error.
    """

    def __init__(self, url: str, *, timeout: float, api_key: str | None = None) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        self._parts, self._key = urlsplit(self.url), api_key
        self._tls = ssl.create_default_context() if self._parts.scheme == "https" else None

    def get(self, path: str, timeout: float | None = None, call: Call | None = None) -> Any:
        """The JSON of a 200 answer; None for an empty one. Raises `ServerError`."""
        return self._json("GET", path, self._whole("GET", path, None, timeout, call))

    def text(self, path: str, timeout: float | None = None) -> str:
        """A 200 answer as it is. Raises `ServerError`."""
        return self._whole("GET", path, None, timeout, None).decode("utf-8", "replace")

    def post(self, path: str, body: Any, timeout: float | None = None, call: Call | None = None) -> Any:
        """The JSON of a 200 answer; None for an empty one. `bytes` are sent as they are, all else as JSON.

        Raises `ServerError`.
        """
        return self._json("POST", path, self._whole("POST", path, body, timeout, call))

    def stream(
        self, path: str, body: Any, timeout: float | None = None, call: Call | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """The events of an answer, as they come. Closing the generator closes the connection, which ends the request there.

        Raises `ServerError`, also where the answer ends before the server said that it was complete.
        """
        asked = f"POST {path}"
        with self._errors(asked, timeout), self._answer("POST", path, body, timeout, call) as response:
            for line in _lines(response):
                if not line.startswith(_EVENT):
                    continue
                data = line[len(_EVENT) :].strip()
                if data == _END:
                    return
                event = self._json("POST", path, data)
                if not isinstance(event, dict) or "error" in event:
                    raise ServerError(self.url, asked, f"an event that says {excerpt(data)}")
                yield event
            raise ServerError(self.url, asked, "closed the connection in the middle of its answer")

    def _whole(self, method: str, path: str, body: Any, timeout: float | None, call: Call | None) -> bytes:
        with self._errors(f"{method} {path}", timeout), self._answer(method, path, body, timeout, call) as response:
            data = response.read(MOST_BYTES)
            if response.length:  # announced, and not read or never sent
                raise ServerError(self.url, f"{method} {path}", f"{response.length} bytes of its answer are missing")
            return data

    @contextlib.contextmanager
    def _answer(
        self, method: str, path: str, body: Any, timeout: float | None, call: Call | None
    ) -> Iterator[http.client.HTTPResponse]:
        host, port, limit = self._parts.hostname or "", self._parts.port, timeout or self.timeout
        if self._tls is None:
            connection = http.client.HTTPConnection(host, port, timeout=min(limit, CONNECT_SECONDS))
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=min(limit, CONNECT_SECONDS), context=self._tls)
        headers = {"Accept-Encoding": "identity", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            headers["Content-Type"] = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body, allow_nan=False).encode()
        with contextlib.closing(connection), contextlib.ExitStack() as stack:
            connection.connect()
            connection.sock.settimeout(limit)
            if call is not None:
                stack.callback(call.attach, None)
                call.attach(connection.sock)
            connection.request(method, f"{self._parts.path}{path}", body, headers)
            with connection.getresponse() as response:
                if response.status != 200:
                    said = excerpt(response.read(SHOWN * 4))
                    raise ServerError(
                        self.url, f"{method} {path}", f"HTTP {response.status}{': ' if said else ''}{said}", response.status
                    )
                yield response

    @contextlib.contextmanager
    def _errors(self, asked: str, timeout: float | None) -> Iterator[None]:
        """What the libraries below raise, as `ServerError`."""
        try:
            yield
        except TimeoutError as error:
            raise ServerError(self.url, asked, f"silent for {timeout or self.timeout:g} s") from error
        except http.client.RemoteDisconnected as error:
            raise ServerError(self.url, asked, "closed the connection without an answer") from error
        except http.client.IncompleteRead as error:
            raise ServerError(self.url, asked, "closed the connection in the middle of its answer") from error
        except http.client.HTTPException as error:
            raise ServerError(self.url, asked, f"no HTTP: {type(error).__name__}: {excerpt(str(error))}") from error
        except OSError as error:
            raise ServerError(self.url, asked, error.strerror or str(error) or type(error).__name__) from error

    def _json(self, method: str, path: str, data: bytes) -> Any:
        if not data:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ServerError(self.url, f"{method} {path}", f"no JSON in its answer: {excerpt(data)!r}") from error


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := response.readline(MOST_BYTES):
        yield line


def excerpt(text: str | bytes) -> str:
    """The beginning of what came back, on one line of printable characters."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    line = " ".join(decoded[: SHOWN * 4].split())
    return "".join(c if c.isprintable() else "?" for c in line)[:SHOWN]
