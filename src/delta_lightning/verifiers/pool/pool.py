"""Verdicts from worker processes, under a wall-clock limit that is enforced by killing."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

from delta_lightning.errors import RunError, require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Verdict
from delta_lightning.verifiers.pool.process import Item, setup_message
from delta_lightning.verifiers.pool.supervisor import Bounds, Counts, Supervisor

_TICK = 0.2  # seconds between two calls of `tick`

Tick = Callable[[int, int], None]


class VerifierPool:
    """Runs a verifier in worker processes and gives every completion exactly one verdict.

    Workers are programs of their own: nothing of the trainer is imported there, neither its `__main__` (unless the verifier's
    class lives in it) nor torch. One thread of the trainer's process feeds them and enforces the limits, whether or not anybody
    calls the pool. Log-probabilities of completions do not travel. Verdicts come in no particular order.

    Limits. The clock of an item starts when it starts running, by the worker's own report. An item that takes longer than
    `timeout` gets `Status.TIMEOUT`; its worker is killed, with everything it started, and replaced.

    Deaths. An item whose worker dies (a crash, the kernel's out-of-memory killer) runs once more, alone, with a clock of its
    own; if that worker dies too it gets `Status.ERROR`, and nobody else does. An item whose worker grows past
    `worker_memory_mib` also runs once more, then gets `Status.TIMEOUT`. The death of an idle worker costs nobody anything. All
    are counted in `counts`.

    What a verifier starts dies with its worker, however that one ends: everything in its process group, and processes in
    groups or sessions of their own that asked the kernel for SIGKILL at their parent's death (PR_SET_PDEATHSIG). In the same
    way the workers die with the trainer.

    All calls come from one thread at a time.

    Args:
        verifier: the part; it must pickle.
        workers: number of processes, at least 1.
        timeout: seconds of wall clock per verdict, > 0.
        pending_mib: most MiB of completions without a verdict (characters, and 8 bytes per token); `submit` waits above it.
        worker_memory_mib: most resident memory of one worker, MiB, without what it started; 0: no bound.
        recycle_after: items after which a worker is replaced by a fresh one, for verifiers that leak; 0: never.

    Raises:
        RunError: from `submit`, `poll` or `drain`, when the workers cannot start (the verifier does not import), keep dying
            without a verdict in between, or the pool is closed.
    """

    def __init__(
        self,
        verifier: Verifier,
        *,
        workers: int,
        timeout: float,
        pending_mib: int = 1024,
        worker_memory_mib: int = 4096,
        recycle_after: int = 0,
    ) -> None:
        require(workers >= 1, "workers", wanted="at least 1 process", got=workers, remedy="Use the number of spare CPU cores.")
        require(timeout > 0, "timeout", wanted="seconds > 0", got=timeout, remedy="5 is ample for mathematics.")
        require(pending_mib >= 1, "pending_mib", wanted="at least 1 MiB", got=pending_mib, remedy="Leave it at 1024.")
        for name, value in (("worker_memory_mib", worker_memory_mib), ("recycle_after", recycle_after)):
            require(value >= 0, name, wanted="at least 0", got=value, remedy="0 switches it off.")
        bounds = Bounds(workers=workers, timeout=timeout, worker_memory_mib=worker_memory_mib, recycle_after=recycle_after)
        self._bound = pending_mib * 2**20
        self._supervisor = Supervisor(setup_message(verifier), bounds)
        self._submitted = 0  # of the present round, which ends when every verdict was handed out
        self._handed_out = 0
        # Runs at `close`, when the pool is collected, or at exit: no orphans, whatever the trainer forgets.
        self._finalizer = weakref.finalize(self, _close, self._supervisor, os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """What happened since the pool was opened."""
        return self._supervisor.counts

    def submit(self, key: Hashable, prompt: Prompt, completion: Completion, tick: Tick | None = None) -> None:
        """Queue a completion; its verdict comes with `key`, once.

        Returns at once, unless more than `pending_mib` have no verdict yet: then it waits for room, and the time is counted.

        Args:
            tick: called with (finished, submitted) of this round of work every 0.2 s of such a wait; it may raise to interrupt.
        """
        shared = self._supervisor
        item = Item(key, prompt, completion)
        if self._handed_out == self._submitted:
            self._handed_out = self._submitted = 0
        started = time.monotonic()
        while not self._offer(item):
            if tick is not None:
                tick(self._handed_out + len(shared.answered), self._submitted)
        waited = time.monotonic() - started
        self._submitted += 1
        if waited > _TICK / 10:
            with shared.changed:
                shared.counts = replace(shared.counts, waited_seconds=shared.counts.waited_seconds + waited)
        shared.wake()

    def poll(self) -> list[tuple[Hashable, Verdict]]:
        """The verdicts that have arrived since the last call. Returns at once."""
        self._require_working()
        arrived = self._take()
        return [(key, verdict) for key, verdict, _ in arrived]

    def drain(self, tick: Tick | None = None) -> Iterator[tuple[Hashable, Verdict]]:
        """Yield verdicts until everything submitted is answered.

        Args:
            tick: called with (finished, submitted) of this round of work, at least every 0.2 s; it may raise to interrupt.
        """
        for key, verdict, _ in self.drain_timed(tick):
            yield key, verdict

    def drain_timed(self, tick: Tick | None = None) -> Iterator[tuple[Hashable, Verdict, float]]:
        """Like `drain`, with the seconds that each item ran."""
        shared = self._supervisor
        while shared.answered or self._handed_out < self._submitted:
            with shared.changed:
                if not shared.answered:
                    self._require_working()
                    shared.changed.wait(_TICK)
            while shared.answered:
                self._handed_out += 1
                yield shared.answered.popleft()
            if tick is not None:
                tick(self._handed_out, self._submitted)

    def close(self) -> None:
        """Kill the workers and drop what is unanswered. May be called twice."""
        self._finalizer()

    def _offer(self, item: Item) -> bool:
        """Queue the item if there is room, after at most 0.2 s; False if there is none yet."""
        shared = self._supervisor
        with shared.changed:
            self._require_working()
            if shared.pending_bytes and shared.pending_bytes + item.size > self._bound:
                shared.changed.wait(_TICK)
                if shared.pending_bytes and shared.pending_bytes + item.size > self._bound:
                    return False
            shared.queue.append(item)
            shared.pending_bytes += item.size
        return True

    def _take(self) -> list[tuple[Hashable, Verdict, float]]:
        with self._supervisor.changed:
            arrived = list(self._supervisor.answered)
            self._supervisor.answered.clear()
        self._handed_out += len(arrived)
        return arrived

    def _require_working(self) -> None:
        if not self._finalizer.alive:
            raise RunError("The verifier pool is closed. Open a new one for further completions.")
        if self._supervisor.failure:
            raise RunError(self._supervisor.failure)


def _close(supervisor: Supervisor, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork of the trainer, which has a copy of the pool
        supervisor.close()
