"""The thread that feeds worker processes, collects their verdicts, and kills what is late."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, replace
from multiprocessing.connection import wait

from delta_lightning.errors import RunError
from delta_lightning.types import Status, Verdict
from delta_lightning.verifiers.pool.process import Item, WorkerProcess

_MAX_BATCH = 16  # items sent to a worker at once: amortises a wake-up, bounds what waits behind a slow one
_BATCH_SECONDS = 0.02  # a batch should not take longer, so that slow items do not queue behind each other
_BATCH_BYTES = 2**20
_START_LIMIT = 120.0  # seconds until a worker must be ready; imports may come from a slow network disk
_WATCH = 0.2  # seconds between two looks at a worker's memory
_STRIKES = 2  # deaths of workers on one item until it is blamed
_FRUITLESS = 3  # deaths in a row, for each worker, without a verdict in between, until the run stops
_SMOOTH = 0.1  # weight of the newest item in the running mean of seconds


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the supervisor enforces; the fields are those of `VerifierPool`."""

    workers: int
    timeout: float
    worker_memory_mib: int
    recycle_after: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What happened in a pool since it was opened.

    Attributes:
        verdicts: handed to the owner. timeouts: items killed at the limit of time or memory.
        replaced: workers that died by themselves, busy or idle. retried: items run again because their worker died.
        recycled: workers replaced for their age or size while idle. waited_seconds: that `submit` held its caller back.
    """

    verdicts: int = 0
    timeouts: int = 0
    replaced: int = 0
    retried: int = 0
    recycled: int = 0
    waited_seconds: float = 0.0


class Supervisor:
    """Owns the worker processes; everything about them happens in its one thread.

    The owner and the thread share `queue`, `answered`, `pending_bytes`, `counts` and `failure`, under the lock of `changed`.
    The thread lives as long as the pool, which is why the kernel may tie the workers' lives to it.

    Args:
        setup: the first message to a worker. bounds: see there.
    """

    def __init__(self, setup: bytes, bounds: Bounds) -> None:
        self._setup, self._bounds = setup, bounds
        self.changed = threading.Condition()
        self.queue: deque[Item] = deque()
        self.answered: deque[tuple[Hashable, Verdict, float]] = deque()
        self.pending_bytes = 0  # of items that have no verdict yet
        self.counts = Counts()
        self.failure = ""
        self._bell, self._rope = socket.socketpair()  # pulled by the owner to wake the thread
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._closing = False
        self._workers: list[WorkerProcess] = []
        self._new: list[tuple[Item, Verdict, float]] = []  # verdicts found in this round of the loop
        self._fruitless, self._mean = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="verifier pool", daemon=True)
        self._thread.start()

    # The owner's side -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make the thread look at the queue. Cheap, from any thread."""
        with contextlib.suppress(BlockingIOError, OSError):  # full: it has been rung often enough
            self._rope.send(b"!")

    def close(self) -> None:
        """Kill the workers; what is unanswered is dropped. Returns when they are gone."""
        self._closing = True
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(10.0)

    # The thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._workers = [WorkerProcess(self._setup) for _ in range(self._bounds.workers)]
            while not self._closing:
                self._turn()
        except RunError as error:
            self._fail(str(error))
        except BaseException:  # noqa: BLE001 -- the owner must hear of it, or it would wait for ever
            self._fail(f"The verifier pool failed:\n{traceback.format_exc()}")
        finally:
            for worker in self._workers:
                worker.kill()
            self._bell.close()
            self._rope.close()

    def _fail(self, message: str) -> None:
        with self.changed:
            self.failure = message
            self.changed.notify_all()

    def _turn(self) -> None:
        """Collect reports, kill what is late, replace what is dead, hand out work; sleeps until something happens."""
        readable = wait([*(worker.connection for worker in self._workers), self._bell], timeout=self._patience())
        if self._bell in readable:
            with contextlib.suppress(BlockingIOError):
                self._bell.recv(4096)
        for index, worker in enumerate(self._workers):
            if worker.connection in readable and not self._collect(worker):
                self._bury(index, worker.kill())
            elif self._late(worker):
                self._punish(index)
            elif worker.held and self._too_big(worker):
                worker.kill()
                self._struck(index, Status.TIMEOUT, f"no verdict within {self._bounds.worker_memory_mib} MiB of memory")
        self._publish()
        self._feed()

    def _patience(self) -> float | None:
        """Seconds until something must be looked at; None to wait for a message."""
        first = min((w.since + self._limit(w) for w in self._workers if w.held or not w.ready), default=math.inf)
        first -= time.monotonic()
        if self._bounds.worker_memory_mib and any(worker.held for worker in self._workers):
            first = min(first, _WATCH)
        return None if first == math.inf else max(0.0, first)

    def _limit(self, worker: WorkerProcess) -> float:
        return self._bounds.timeout if worker.ready else _START_LIMIT

    def _late(self, worker: WorkerProcess) -> bool:
        if (worker.ready and not worker.held) or time.monotonic() - worker.since <= self._limit(worker):
            return False
        # What arrived since the wait may have been in time.
        return not worker.connection.poll() or not self._collect(worker) or self._late(worker)

    def _collect(self, worker: WorkerProcess) -> bool:
        """Read every report that has arrived; False if the worker is dead."""
        reports = worker.reports()
        for report in reports or ():
            if report.failure:
                raise RunError(f"The verifier does not start in its process:\n{report.failure}")
            if report.verdict is None:
                worker.ready = True
            else:
                # It may have come to an end only because this thread was kept from looking.
                seconds = report.time - worker.since
                late = seconds > self._bounds.timeout
                self._answer(worker.held.popleft(), self._too_late() if late else report.verdict, seconds)
                worker.finished += 1
            worker.since = report.time
        return reports is not None

    def _feed(self) -> None:
        """Give every idle worker a batch: of cheap items and a long queue many, otherwise few, for an even finish."""
        for index, worker in enumerate(self._workers):
            if worker.ready and not worker.held:
                if self._worn(worker):
                    worker.kill()
                    self._count(recycled=1)
                    self._workers[index] = WorkerProcess(self._setup)
                    continue
                batch = self._batch()
                if batch and not worker.send(batch):
                    self._mourn(worker.kill(), started=True)
                    self._replace(index)  # nobody is to blame: nothing ran

    def _batch(self) -> list[Item]:
        with self.changed:
            if not self.queue:
                return []
            cheap = int(_BATCH_SECONDS / self._mean) if self._mean > 0 else 1
            share = len(self.queue) // (2 * len(self._workers))
            size = max(1, min(_MAX_BATCH, share, cheap))
            batch = [self.queue.popleft()]
            room = _BATCH_BYTES - batch[0].size
            # An item that a worker died on runs alone, so that nobody else is suspected.
            while len(batch) < size and not batch[0].deaths and self.queue[0].size <= room and not self.queue[0].deaths:
                batch.append(self.queue.popleft())
                room -= batch[-1].size
            return batch

    def _worn(self, worker: WorkerProcess) -> bool:
        after = self._bounds.recycle_after
        return bool(after and worker.finished >= after) or (worker.finished > 0 and self._too_big(worker))

    def _too_big(self, worker: WorkerProcess) -> bool:
        """Whether it holds too much memory; looked at now and then only, since the reading takes as long as a cheap item."""
        bound, now = self._bounds.worker_memory_mib, time.monotonic()
        if not bound or now - worker.measured < _WATCH:
            return False
        worker.measured = now
        return worker.resident_mib() > bound

    def _punish(self, index: int) -> None:
        """Deal with a worker that has been at it for too long."""
        worker = self._workers[index]
        if not worker.ready:
            raise RunError(f"A verifier process was not ready after {_START_LIMIT:.0f} s. Is the machine overloaded?")
        worker.kill()
        self._answer(worker.held.popleft(), self._too_late(), time.monotonic() - worker.since)
        self._replace(index)

    def _bury(self, index: int, how: str) -> None:
        """Deal with a worker that died by itself."""
        self._mourn(how, started=self._workers[index].ready)
        self._struck(index, Status.ERROR, f"the verifier process ended {how}, {_STRIKES} times")

    def _mourn(self, how: str, *, started: bool) -> None:
        """Count a death; too many without a verdict in between end the run."""
        self._count(replaced=1)
        self._fruitless += 1
        if self._fruitless > _FRUITLESS * len(self._workers):
            when = "in a row, without a verdict in between" if started else "while they started"
            raise RunError(f"{self._fruitless} verifier processes ended {how} {when}. Is there enough memory?")

    def _struck(self, index: int, status: Status, reason: str) -> None:
        """The running item's worker is dead: run the item once more, alone, or give up on it; the others are not to blame."""
        worker = self._workers[index]
        if worker.held:
            worker.held[0].deaths += 1
            if worker.held[0].deaths >= _STRIKES:
                self._answer(worker.held.popleft(), Verdict(status=status, reward=0.0, reason=reason), 0.0)
            else:
                self._count(retried=1)
        self._replace(index)

    def _replace(self, index: int) -> None:
        """Start a new worker; what the old one had not finished goes first."""
        with self.changed:
            self.queue.extendleft(reversed(self._workers[index].held))
        self._workers[index] = WorkerProcess(self._setup)

    def _too_late(self) -> Verdict:
        return Verdict(status=Status.TIMEOUT, reward=0.0, reason=f"no verdict within {self._bounds.timeout:g} s")

    def _answer(self, item: Item, verdict: Verdict, seconds: float) -> None:
        self._fruitless = 0
        self._mean += (seconds - self._mean) * _SMOOTH
        self._new.append((item, verdict, seconds))

    def _publish(self) -> None:
        """Hand the verdicts of this turn to the owner."""
        if not self._new:
            return
        late = sum(verdict.status is Status.TIMEOUT for _, verdict, _ in self._new)
        with self.changed:
            self.answered.extend((item.key, verdict, seconds) for item, verdict, seconds in self._new)
            self.pending_bytes -= sum(item.size for item, _, _ in self._new)
            self._count(verdicts=len(self._new), timeouts=late)
            self.changed.notify_all()
        self._new.clear()

    def _count(self, **more: float) -> None:
        with self.changed:
            self.counts = replace(self.counts, **{name: getattr(self.counts, name) + value for name, value in more.items()})
