"""One HTTP exchange under a deadline: a POST of JSON, and whatever comes back, sorted into what it means."""

from __future__ import annotations

import contextlib
import http.client
import io
import queue
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

_AGAIN = frozenset({408, 425, 429})  # besides 5xx: asking again may help
_CHUNK = 65536
_SHOWN = 200  # characters of an answer that a reason shows


class AwayError(Exception):
    """The service did not answer, or says that it cannot now. Asking again may help.

    Args:
        reason: one line. pause: seconds that the service asked to wait, or None.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class NonsenseError(Exception):
    """The service answered what cannot be used, or refused the request: asking again would not help."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Time limits of one exchange, seconds.

    Attributes:
        connect: until connected, name resolution and TLS included. read: longest silence while waiting for bytes.
        deadline: monotonic clock at which the whole exchange must be over.
    """

    connect: float
    read: float
    deadline: float

    def left(self, most: float) -> float:
        """Seconds to wait at most. Raises `AwayError` when the deadline has passed."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise AwayError(self.missed())
        return min(left, most)

    def missed(self) -> str:
        """Which limit a wait has just met."""
        over = time.monotonic() > self.deadline - 0.01
        return "no complete answer within the total time" if over else f"silent for {self.read:g} s"


class _ClockedReader(io.RawIOBase):
    """Bytes of a socket; before each wait the time that is left is set, so that dripping bytes cannot outlast the deadline."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock, self._patience = sock, patience
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        self._sock.settimeout(self._patience.left(self._patience.read))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._raw.close()
        super().close()


class _ClockedSocket:
    """What `http.client` uses of a socket, under the clock."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock, self._patience = sock, patience

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._patience.left(self._patience.read))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_ClockedReader(self._sock, self._patience))

    def close(self) -> None:
        self._sock.close()


def post(
    url: str, body: bytes, headers: dict[str, str], *, patience: Patience, most_bytes: int, tls: ssl.SSLContext | None
) -> bytes:
    """The body of the 200 answer to a POST.

    No redirect is followed, no proxy used, no compression asked for or accepted, and no more than `most_bytes` are read.

    Raises:
        AwayError: refused, closed, silent, late, 408, 425, 429 or 5xx. NonsenseError: anything else.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)  # writes and reads HTTP; never connects itself
    try:
        sock = _connected(parts, patience, tls)
        with contextlib.closing(sock):
            connection.sock = _ClockedSocket(sock, patience)
            path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            sent = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
            connection.request("POST", path, body, {**sent, "Connection": "close", **headers})
            with connection.getresponse() as response:
                return _usable(response, most_bytes)
    except TimeoutError as error:
        raise AwayError(patience.missed()) from error
    except ssl.SSLCertVerificationError as error:
        raise NonsenseError(f"its certificate is refused: {error.verify_message}") from error
    except http.client.RemoteDisconnected as error:
        raise AwayError("closed the connection without an answer") from error
    except http.client.IncompleteRead as error:
        raise AwayError("closed the connection in the middle of its answer") from error
    except http.client.HTTPException as error:
        raise NonsenseError(f"did not answer in HTTP: {type(error).__name__}: {excerpt(str(error))}") from error
    except OSError as error:
        raise AwayError(error.strerror or str(error) or type(error).__name__) from error
    finally:
        connection.close()


def _connected(parts: SplitResult, patience: Patience, tls: ssl.SSLContext | None) -> socket.socket:
    until = time.monotonic() + patience.left(patience.connect)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    failure: OSError = OSError("its name has no address")
    for family, kind, protocol, _, address in _addresses(parts.hostname or "", port, until):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.001, until - time.monotonic()))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme != "https":
                return sock
            sock.settimeout(max(0.001, until - time.monotonic()))
            return (tls or ssl.create_default_context()).wrap_socket(sock, server_hostname=parts.hostname)
        except OSError as error:
            sock.close()
            failure = error
    if isinstance(failure, TimeoutError):
        raise AwayError(f"no connection within {patience.connect:g} s") from failure
    raise failure


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]


def _addresses(host: str, port: int, until: float) -> list[_Address]:
    """Name resolution, which knows no time limit of its own: in a thread that may be left behind."""
    found: queue.SimpleQueue[list[_Address] | OSError] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
        except (OSError, UnicodeError) as error:
            found.put(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=resolve, daemon=True).start()
    try:
        answer = found.get(timeout=max(0.001, until - time.monotonic()))
    except queue.Empty:
        raise AwayError(f"no address for {host} in time") from None
    if isinstance(answer, OSError):
        raise AwayError(f"no address for {host}: {answer.strerror or answer}")
    return answer


def _usable(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    """The body, once status, encoding and size are found in order."""
    status = response.status
    if status in _AGAIN or status >= 500:
        raise AwayError(f"HTTP {status}{_quoted(response)}", _pause(response.headers.get("Retry-After")))
    if 300 <= status < 400:
        raise NonsenseError(
            f"HTTP {status}, a redirect to {excerpt(response.headers.get('Location', 'nowhere'))}: not followed"
        )
    if status != 200:
        raise NonsenseError(f"HTTP {status}{_quoted(response)}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise NonsenseError(f"an answer compressed by {excerpt(encoding)}, which was not asked for")
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > most_bytes:
            raise NonsenseError(f"an answer of more than {most_bytes} bytes")
    if response.length:  # bytes that were announced and never came
        raise AwayError("closed the connection in the middle of its answer")
    return bytes(body)


def _quoted(response: http.client.HTTPResponse) -> str:
    """The beginning of an error's body, if it comes."""
    try:
        text = excerpt(response.read1(_SHOWN * 4))
    except (OSError, http.client.HTTPException, AwayError):
        return ""
    return f": {text}" if text else ""


def _pause(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; None where it is missing or cannot be read."""
    if header is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(header))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None


def excerpt(text: str | bytes) -> str:
    """The beginning of what came back, on one line of printable characters."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    line = " ".join(decoded[: _SHOWN * 4].split())
    return "".join(c if c.isprintable() else "?" for c in line)[:_SHOWN]
