"""Requests dealt out over servers, by how busy they are; those of a server that is lost go to the others."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from delta_lightning.errors import RunError
from delta_lightning.samplers.rows import Row
from delta_lightning.samplers.servers.client import Call, ServerError
from delta_lightning.samplers.servers.question import Answer, Question, WrongVersionError
from delta_lightning.samplers.servers.server import Server

POLL = 0.2  # seconds between looks at the clock while nothing happens


@dataclass(frozen=True)
class Moved:
    """A server showed progress."""

    server: Server


@dataclass(frozen=True)
class Lost:
    """A server must be given up."""

    server: Server
    reason: str


@dataclass(eq=False)
class _Attempt:
    """One row, asked of one server under a name of its own."""

    row: Row
    server: Server
    name: str
    call: Call = field(default_factory=Call)


@dataclass(frozen=True)
class _Failure:
    """An attempt that failed; `given_up` says why if the server is to be given up with it."""

    error: ServerError
    given_up: str | None


class Fleet:
    """The servers of a run, as one process uses them. One call of `answers` at a time.

    A server is set aside when it cannot be reached, when its process has ended, when it fails more than `retries` times in a
    row, when it answers from other weights than the last, or when it holds requests and makes no token for `silence` seconds.
    It stays aside until the next update of the weights.

    Args:
        servers: at least one. prefix: begins the names of requests. first: the server that gets the first of equal choices.
        say: prints a line for people.
    """

    def __init__(self, servers: Sequence[Server], *, prefix: str, first: int, say: Callable[[str], None]) -> None:
        self.servers, self._prefix, self._first, self._say = list(servers), prefix, first, say
        self._serial = itertools.count()

    def up(self) -> list[Server]:
        """Servers in use. Raises `RunError`, with each one's reason, if there is none."""
        up = [server for server in self.servers if server.lost is None]
        if not up:
            raise RunError("no vLLM server is left: " + "; ".join(f"{one.url}: {one.lost}" for one in self.servers))
        return up

    def lose(self, server: Server, reason: str) -> None:
        """Set a server aside."""
        if server.lost is None:
            server.lost = reason
            self._say(f"vLLM server {server.url} is lost: {reason}")

    def regain(self, server: Server) -> None:
        """Take a server in again."""
        server.lost, server.strikes, server.rest_until = None, 0, 0.0
        self._say(f"vLLM server {server.url} is back")

    def answers(
        self, rows: Iterable[Row], question: Question, moved: Callable[[], None]
    ) -> Generator[tuple[Row, Answer], None, None]:
        """Rows with their answers, as they come; closing the generator cuts off all requests in flight.

        `moved` is called whenever a server shows progress. Raises `RunError` when no server is left.
        """
        work = _Work(self, deque(rows), question)
        try:
            yield from work.run(moved)
        finally:
            work.stop()

    def name(self) -> str:
        """A name for a request that none had before."""
        return f"{self._prefix}-{next(self._serial)}"

    def next_free(self) -> Server | None:
        """The least busy server that may be given a request."""
        now, count = time.monotonic(), len(self.servers)
        turn = [self.servers[(self._first + k) % count] for k in range(count)]
        free = [server for server in turn if server.free(now)]
        return min(free, key=lambda server: server.in_flight / server.slots, default=None)


class _Work:
    """One call of `Fleet.answers`. All but `_attempt` and `_watch` runs in the thread that reads the generator."""

    def __init__(self, fleet: Fleet, waiting: deque[Row], question: Question) -> None:
        self._fleet, self._waiting, self._question = fleet, waiting, question
        self._running: dict[Future[Answer | _Failure], _Attempt] = {}
        self._events: queue.SimpleQueue[Future[Answer | _Failure] | Moved | Lost] = queue.SimpleQueue()
        self._over = threading.Event()
        slots = sum(server.slots for server in fleet.up())
        self._threads = ThreadPoolExecutor(max(1, min(slots, len(waiting))), thread_name_prefix="vllm-request")
        self._watches = [
            threading.Thread(target=self._watch, args=(server,), name=f"vllm-watch {server.url}", daemon=True)
            for server in fleet.up()
        ]

    def run(self, moved: Callable[[], None]) -> Generator[tuple[Row, Answer], None, None]:
        for watch in self._watches:
            watch.start()
        while self._waiting or self._running:
            self._deal_out()
            try:
                event = self._events.get(timeout=POLL)
            except queue.Empty:
                continue
            if isinstance(event, Moved):
                moved()
            elif isinstance(event, Lost):
                self._lose(event.server, event.reason)
            elif (attempt := self._running.pop(event, None)) is not None:  # else its server was lost before
                attempt.server.in_flight -= 1
                result = event.result()
                if isinstance(result, _Failure):
                    self._waiting.appendleft(attempt.row)
                    self._failed(attempt.server, result)
                else:
                    attempt.server.answered()
                    yield attempt.row, result

    def stop(self) -> None:
        """Cut off what is in flight, and wait for the threads."""
        self._over.set()
        for attempt in self._running.values():
            attempt.call.cancel()
            attempt.server.in_flight = 0
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._running.clear()

    def _deal_out(self) -> None:
        self._fleet.up()
        while self._waiting and (server := self._fleet.next_free()) is not None:
            attempt = _Attempt(self._waiting.popleft(), server, self._fleet.name())
            server.in_flight += 1
            future = self._threads.submit(self._attempt, attempt)
            self._running[future] = attempt
            future.add_done_callback(self._events.put)

    def _failed(self, server: Server, failure: _Failure) -> None:
        if server.lost is not None:
            return
        if failure.given_up is not None:
            self._lose(server, failure.given_up)
        elif not server.failed(time.monotonic()):
            self._lose(server, f"{server.strikes} failures in a row, the last of them: {failure.error.reason}")

    def _lose(self, server: Server, reason: str) -> None:
        self._fleet.lose(server, reason)
        for future, attempt in list(self._running.items()):
            if attempt.server is server:
                del self._running[future]
                attempt.call.cancel()
                self._waiting.appendleft(attempt.row)
        server.in_flight = 0

    # In threads of their own -----------------------------------------------------------------------------------------

    def _attempt(self, attempt: _Attempt) -> Answer | _Failure:
        server, seconds = attempt.server, attempt.server.patience.request
        try:
            with server.holding():
                answer = self._question.ask(server.client, attempt.row, attempt.name, attempt.call, seconds)
        except WrongVersionError as error:
            return _Failure(error, error.reason)
        except ServerError as error:
            return _Failure(error, None if attempt.call.cancelled else server.why(error))
        server.moved = time.monotonic()
        return answer

    def _watch(self, server: Server) -> None:
        """Looks at a server's count of tokens while it holds requests."""
        seen = -1.0
        pause = min(5.0, server.patience.silence / 4)
        while not self._over.wait(pause) and server.lost is None:
            if not server.held():
                continue
            ended = server.ended()
            if ended is not None:
                self._events.put(Lost(server, ended))
                return
            try:
                count, said = server.progress(), "no token"
            except ServerError as error:
                count, said = seen, f"{error.asked}: {error.reason}, and no completion"
            if count != seen:
                seen, server.moved = count, time.monotonic()
                self._events.put(Moved(server))
            silent = server.silent()
            if silent > server.patience.silence:
                self._events.put(Lost(server, f"it hangs: {server.held()} requests in flight, {said} in {silent:.0f} s"))
                return
