"""One server as the trainer sees it: how busy it is, whether it is lost and why, and signs of its life."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from delta_lightning.samplers.servers.client import Client, ServerError

COUNTERS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
PAUSE = 0.5  # seconds that a server rests after a failure that is forgiven; doubled after each further one
REAPED = 2.0  # seconds in which a process that closed its connections should have ended


class Handle(Protocol):
    """A server process that was started here."""

    @property
    def url(self) -> str:
        """Where it listens."""
        ...

    def alive(self) -> bool:
        """True while the process runs."""
        ...

    def exit_code(self) -> int | None:
        """Its exit code, 128 + N for signal N; None while it runs."""
        ...

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        ...

    def stop(self) -> None:
        """End it. May be called twice."""
        ...


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long servers are waited for, seconds, and how often they are forgiven.

    Attributes:
        request: one completion. silence: requests in flight and no token. answer: a question about the server itself.
        retries: failures in a row forgiven.
    """

    request: float
    silence: float
    answer: float
    retries: int


class Server:
    """See the module. `in_flight`, `strikes` and `lost` are changed by the thread that deals out work only.

    Args:
        client: asks it. slots: most requests of this process in flight. patience: see there.
        handle: its process, where this process started it.
    """

    def __init__(self, client: Client, *, slots: int, patience: Patience, handle: Handle | None = None) -> None:
        self.client, self.slots, self.patience, self.handle = client, slots, patience, handle
        self.lost: str | None = None  # why, once it is set aside
        self.in_flight, self.strikes, self.rest_until = 0, 0, 0.0
        self.moved = time.monotonic()  # when it last showed progress
        self._held, self._lock = 0, threading.Lock()

    @property
    def url(self) -> str:
        """Its address, and its name in messages."""
        return self.client.url

    def free(self, now: float) -> bool:
        """True if it may be given a request."""
        return self.lost is None and self.in_flight < self.slots and now >= self.rest_until

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Within the block the server has a request to work on. Threads may call it."""
        with self._lock:
            self.moved = self.moved if self._held else time.monotonic()  # it was idle until now
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1

    def answered(self) -> None:
        """It completed a request."""
        self.strikes = 0

    def failed(self, now: float) -> bool:
        """It failed, and says that it is healthy: False once it has failed too often in a row to be forgiven.

        Requests that fail together count as one failure.
        """
        if now >= self.rest_until:
            self.strikes += 1
            self.rest_until = now + PAUSE * 2 ** (self.strikes - 1)
        return self.strikes <= self.patience.retries

    def silent(self) -> float:
        """Seconds without progress, 0 while it holds no request."""
        with self._lock:
            return time.monotonic() - self.moved if self._held else 0.0

    def held(self) -> int:
        """Requests of this process that it works on; fewer than `in_flight` while nobody reads answers that have come."""
        return self._held

    def progress(self) -> float:
        """Tokens that it has read and generated since it started. Raises `ServerError`, also where it does not count them."""
        return counted(self.client, self.patience.answer)

    def ended(self, wait: float = 0.0) -> str | None:
        """How its process ended, with the last lines of its log; None while it runs or where it is not ours."""
        if self.handle is None:
            return None
        until = time.monotonic() + wait
        while self.handle.alive():
            if time.monotonic() >= until:
                return None
            time.sleep(0.05)
        lines = self.handle.log_tail().strip()
        return f"its process ended with exit code {self.handle.exit_code()}" + (f"; its log ends:\n{lines}\n" if lines else "")

    def why(self, error: ServerError) -> str | None:
        """Why the server is to be given up after `error`; None if it is there, and may be forgiven."""
        ended = self.ended(REAPED)
        if ended is not None:
            return f"{error.reason}; {ended}"
        try:
            self.client.get("/health", self.patience.answer)
        except ServerError as failure:
            return error.reason if failure.reason == error.reason else f"{error.reason}; its /health: {failure.reason}"
        return None


def counted(client: Client, seconds: float) -> float:
    """Tokens read and generated, by a server's own count. Raises `ServerError`."""
    page = client.text("/metrics", seconds)
    values = [float(value) for name in COUNTERS for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE)]
    if not values:
        raise ServerError(client.url, "GET /metrics", f"no {COUNTERS[0]} there: start it without --disable-log-stats")
    return sum(values)
