"""Verdicts from worker processes, under a wall-clock limit that is enforced by killing."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.spawn import get_executable, get_preparation_data
from types import TracebackType
from typing import Self

from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.worker import Report, Setup

_MAX_BATCH = 16  # items sent to a worker at once: amortises a wake-up of the trainer, bounds what a death repeats
_TICK = 0.2  # seconds between two calls of `tick`
_PROGRAM = "import sys; sys.path[:] = {path!r}; from delta_lightning.verifiers.worker import main; main({descriptor})"
_START_LIMIT = 120.0  # seconds until a worker must be ready; imports may come from a slow network disk


class _Item:
    """One completion on its way through the pool."""

    __slots__ = ("key", "work")

    def __init__(self, key: Hashable, prompt: Prompt, completion: Completion) -> None:
        self.key = key
        # Log-probabilities are most of a completion's bytes and no verifier's business.
        self.work = (prompt, replace(completion, logprobs=(), raw_logprobs=()))


class _Worker:
    """A worker process, the socket to it, and the items that it holds, the running one first."""

    def __init__(self, setup: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [get_executable(), "-c", _PROGRAM.format(path=sys.path, descriptor=theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONHASHSEED": "0"},  # sets print and sort alike in every worker and every run
                process_group=0,  # so that what a verifier starts is killed with it, and Ctrl-C passes it by
            )
        self.connection: Connection = Connection(ours.detach())
        self.ready = False
        self.held: deque[_Item] = deque()
        self.since = time.monotonic()  # when the running item (or the start-up) began
        with contextlib.suppress(OSError):  # it is dead already; the pump will notice
            self.connection.send_bytes(setup)

    def send(self, items: list[_Item]) -> None:
        """Hand over a batch. Only to an idle worker, which reads at once, so that this cannot block for long."""
        self.held.extend(items)
        self.since = time.monotonic()
        with contextlib.suppress(OSError):  # it is dead; the pump will notice and blame nothing that did not run
            self.connection.send([item.work for item in items])

    def kill(self) -> int:
        """SIGKILL to the worker and all it started; returns its exit status, negative for a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.connection.close()
        return self.process.wait()


class VerifierPool:
    """Runs a verifier in worker processes and gives every completion exactly one verdict.

    Workers are programs of their own: nothing of the trainer is imported there, neither its `__main__` (unless the verifier's
    class lives in it) nor torch. A completion whose verdict takes longer than `timeout` gets `Status.TIMEOUT` and its
    worker is killed, with everything it started, and replaced. A worker that dies gives `Status.ERROR` to the item it was
    running; items that it had not begun run again elsewhere. The clock of an item starts when it starts running, by the
    worker's own report, so a trainer that looks away for a minute makes nobody late. No signals, no threads: verdicts
    move when `submit`, `poll` or `drain` is called, always from the same thread.

    Log-probabilities of completions do not travel to the workers. Verdicts come in no particular order.

    Args:
        verifier: the part; it must pickle.
        workers: number of processes, at least 1.
        timeout: seconds of wall clock per verdict, > 0.

    Raises:
        RunError: from `submit`, `poll` or `drain`, when the workers cannot start (the verifier does not import) or the pool
            is closed.
    """

    def __init__(self, verifier: Verifier, *, workers: int, timeout: float) -> None:
        require(workers >= 1, "workers", wanted="at least 1 process", got=workers, remedy="Use the number of spare CPU cores.")
        require(timeout > 0, "timeout", wanted="seconds > 0", got=timeout, remedy="5 is ample for mathematics.")
        self._timeout = timeout
        self._setup = _setup(verifier)
        self._queue: deque[_Item] = deque()
        self._answered: deque[tuple[Hashable, Verdict]] = deque()
        self._submitted = 0  # of the present round, which ends when every verdict was handed out
        self._handed_out = 0
        self._workers = [_Worker(self._setup) for _ in range(workers)]
        # Runs at `close`, when the pool is collected, or at exit: no orphans, whatever the trainer forgets.
        self._finalizer = weakref.finalize(self, _kill_all, self._workers, os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def submit(self, key: Hashable, prompt: Prompt, completion: Completion) -> None:
        """Queue a completion; its verdict comes with `key`, once. Returns at once."""
        self._require_open()
        if self._handed_out == self._submitted:
            self._handed_out = self._submitted = 0
        self._submitted += 1
        self._queue.append(_Item(key, prompt, completion))
        self._pump(0.0)

    def poll(self) -> list[tuple[Hashable, Verdict]]:
        """The verdicts that have arrived since the last call. Returns at once."""
        self._require_open()
        self._pump(0.0)
        arrived = list(self._answered)
        self._answered.clear()
        self._handed_out += len(arrived)
        return arrived

    def drain(self, tick: Callable[[int, int], None] | None = None) -> Iterator[tuple[Hashable, Verdict]]:
        """Yield verdicts until everything submitted is answered.

        Args:
            tick: called with (finished, submitted) of this round of work, at least every 0.2 s; it may raise to interrupt.
        """
        while self._answered or self._handed_out < self._submitted:
            self._require_open()
            if not self._answered:
                self._pump(_TICK)
            while self._answered:
                self._handed_out += 1
                yield self._answered.popleft()
            if tick is not None:
                tick(self._handed_out, self._submitted)

    def close(self) -> None:
        """Kill the workers and drop what is unanswered. May be called twice."""
        self._finalizer()

    def _require_open(self) -> None:
        if not self._finalizer.alive:
            raise RunError("The verifier pool is closed. Open a new one for further completions.")

    def _pump(self, patience: float) -> None:
        """Collect reports, kill what is late, replace what is dead, hand out work; wait at most `patience` seconds."""
        connections = [worker.connection for worker in self._workers]
        patience = max(0.0, min(patience, self._first_deadline() - time.monotonic()))
        readable = wait(connections, timeout=patience)
        for index, worker in enumerate(self._workers):
            if worker.connection in readable and not self._collect(worker):
                self._bury(index)
            elif time.monotonic() - worker.since > (self._timeout if worker.ready else _START_LIMIT):
                self._punish(index)
        self._feed()

    def _first_deadline(self) -> float:
        return min((worker.since + self._timeout for worker in self._workers if worker.held), default=math.inf)

    def _collect(self, worker: _Worker) -> bool:
        """Read every report that has arrived; False if the worker is dead."""
        try:
            while worker.connection.poll():
                report: Report = worker.connection.recv()
                if report.failure:
                    raise RunError(f"The verifier does not start in its process:\n{report.failure}")
                if report.verdict is None:
                    worker.ready = True
                else:
                    late = report.time - worker.since > self._timeout  # it came to an end only because nobody looked
                    self._answer(worker.held.popleft(), self._too_late() if late else report.verdict)
                worker.since = report.time
        except (EOFError, OSError):
            return False
        return True

    def _feed(self) -> None:
        """Give every idle worker a batch: large while much is queued, small at the end, for an even finish."""
        for worker in self._workers:
            if self._queue and worker.ready and not worker.held:
                size = max(1, min(_MAX_BATCH, len(self._queue) // (2 * len(self._workers))))
                worker.send([self._queue.popleft() for _ in range(size)])

    def _punish(self, index: int) -> None:
        """Deal with a worker that has been at it for too long."""
        worker = self._workers[index]
        if not worker.ready:
            raise RunError(f"A verifier process was not ready after {_START_LIMIT:.0f} s. Is the machine overloaded?")
        if worker.held:
            worker.kill()
            self._answer(worker.held.popleft(), self._too_late())
            self._replace(index)

    def _bury(self, index: int) -> None:
        """Deal with a worker that died by itself."""
        worker = self._workers[index]
        status = worker.kill()
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        if not worker.ready:
            raise RunError(f"A verifier process ended {how} while it started. Is there enough memory?")
        if worker.held:
            reason = f"the verifier process ended {how}"
            self._answer(worker.held.popleft(), Verdict(status=Status.ERROR, reward=0.0, reason=reason))
        self._replace(index)

    def _replace(self, index: int) -> None:
        """Start a new worker; what the old one had not begun goes first."""
        self._queue.extendleft(reversed(self._workers[index].held))
        self._workers[index] = _Worker(self._setup)

    def _too_late(self) -> Verdict:
        return Verdict(status=Status.TIMEOUT, reward=0.0, reason=f"no verdict within {self._timeout:g} s")

    def _answer(self, item: _Item, verdict: Verdict) -> None:
        self._answered.append((item.key, verdict))


def _setup(verifier: Verifier) -> bytes:
    """The first message to every worker, pickled once."""
    try:
        part = pickle.dumps(verifier)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        name = type(verifier).__name__
        remedy = "Define its class in a module, and keep open files, locks and lambdas out of its fields."
        raise ConfigError(name, wanted="a verifier that pickles", got=str(error), remedy=remedy) from error
    # The trainer's __main__ is run again in the worker only where the verifier's own class stands in it.
    wanted = {"sys_path", "sys_argv", "dir", "orig_dir"}
    if b"__main__" in part:
        wanted |= {"init_main_from_name", "init_main_from_path"}
    preparation = {key: value for key, value in get_preparation_data("verifier").items() if key in wanted}
    # The kernel's signal at a parent's death comes when the *thread* ends that started the child.
    alone = threading.current_thread() is threading.main_thread()
    return pickle.dumps(Setup(preparation=preparation, verifier=part, parent=os.getpid(), die_with_parent=alone))


def _kill_all(workers: list[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # not in a fork of the trainer, which has a copy of the pool
        for worker in workers:
            worker.kill()
