"""The trainer's end of an update over HTTP: one bounded queue for each server, one response for each of its workers."""

from __future__ import annotations

import contextlib
import hmac
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from delta_lightning.samplers.servers.transfers.wire import END

Piece = Sequence[bytes | memoryview]
PATH = "/weights"
AHEAD = 1  # pieces that wait while one is sent
POLL = 0.2  # seconds between looks at whether the server still reads


class Stream:
    """One update on its way to the workers of one server.

    Attributes:
        token: what its workers must show; each may connect once.
    """

    def __init__(self, workers: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._free = [queue.Queue[Piece](AHEAD) for _ in range(workers)]
        self._all = list(self._free)
        self._over = False

    def put(self, piece: Piece, *, seconds: float, wanted: Callable[[], bool]) -> str | None:
        """Hand a piece to every worker, waiting while they are behind.

        Returns the reason if one took nothing for `seconds`. After that, or once `wanted` is False, pieces are dropped.
        """
        for waiting in self._all:
            until = time.monotonic() + seconds
            while not self._over:
                try:
                    waiting.put(piece, timeout=POLL)
                    break
                except queue.Full:
                    if not wanted():
                        self.close()
                    elif time.monotonic() > until:
                        self.close()
                        return f"it took no weights in {seconds:g} s"
        return None

    def claim(self) -> queue.Queue[Piece] | None:
        """The queue of a worker that connects, None if all have."""
        with self._lock:
            return self._free.pop() if self._free else None

    def pieces(self, mine: queue.Queue[Piece], seconds: float) -> Iterator[Piece]:
        """What is put for a worker, until the update is over or nothing comes for `seconds`."""
        until = time.monotonic() + seconds
        while True:
            try:
                piece = mine.get(timeout=POLL)
            except queue.Empty:
                if self._over or time.monotonic() > until:
                    return
                continue
            yield piece
            until = time.monotonic() + seconds

    def close(self) -> None:
        """Let every worker that still waits go."""
        self._over = True


class Listener:
    """Serves one update at a time. Raises `OSError` where it cannot listen.

    Args:
        patience: longest wait for the next piece, and for a worker that reads nothing, seconds.
    """

    def __init__(self, host: str, port: int, *, patience: float) -> None:
        self._server = _Server((host, port), patience)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": POLL}, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def serving(self, streams: Sequence[Stream]) -> Iterator[None]:
        """Workers that show the token of one of these get its pieces; afterwards no token is worth anything."""
        self._server.streams = tuple(streams)
        try:
            yield
        finally:
            self._server.streams = ()
            for stream in streams:
                stream.close()

    def close(self) -> None:
        """Free the port. May be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    streams: tuple[Stream, ...] = ()

    def __init__(self, address: tuple[str, int], patience: float) -> None:
        self.patience = patience
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that went away is its server's failure, which the trainer sees there."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.patience)

    def do_GET(self) -> None:
        shown = self.headers.get("Authorization", "").encode()
        mine = [one for one in self.server.streams if hmac.compare_digest(shown, f"Bearer {one.token}".encode())]
        waiting = mine[0].claim() if mine and self.path == PATH else None
        self.close_connection = True
        if waiting is None:
            self.send_error(403, "no update for this token")
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in mine[0].pieces(waiting, self.server.patience):
            for data in piece:
                if len(data):
                    self.wfile.write(b"%x\r\n" % len(data))
                    self.wfile.write(data)
                    self.wfile.write(b"\r\n")
            if piece[0] == END:
                self.wfile.write(b"0\r\n\r\n")
                return
        # Cut off: without a last chunk the worker sees that the update is not whole.

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: what goes wrong is said by the update."""
