"""Every wait for the sampler has a limit, and ends in an error that names the phase."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import RunError, require

SIGNAL = signal.SIGURG  # ignored by default, and used by neither Lightning, SLURM nor test runners


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Longest silence of each phase that waits for the sampler.

    Past it the stacks of all threads are printed, and the run fails with an error that names the phase.

    Args:
        start_seconds: from the engine's start until it is ready.
        sync_seconds: one update of weights with its proof.
        sample_seconds: without a completion or another sign of life while sampling.
        grace_seconds: how long the process may take to raise the error; after that it ends at once, with exit code 1.
    """

    start_seconds: float = 1800.0
    sync_seconds: float = 900.0
    sample_seconds: float = 1800.0
    grace_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("start_seconds", "sync_seconds", "sample_seconds", "grace_seconds"):
            value = getattr(self, name)
            require(value > 0, f"limits.{name}", wanted="more than 0", got=value, remedy="The defaults are generous.")


class _Expired(BaseException):
    """Raised inside a phase that has been silent for too long; no `except Exception` in its way may swallow it."""


def end_process(code: int) -> None:
    """Without cleaning up, since something in it hangs."""
    _say("the process ends")
    os._exit(code)


class Watchdog:
    """Watches phases of this thread: `with watchdog("sampling", 600): ...`, and `beat()` at each sign of life.

    The wait is broken wherever Python can be interrupted: by a signal in the main thread (locks, queues and sockets included),
    by an exception at the next line of code in any other. Where it cannot, inside a kernel that never returns, the process
    ends after `grace` seconds.

    Args:
        grace: seconds between the error and the last resort. end: that last resort, given an exit code; ends the process.
    """

    def __init__(self, grace: float = 60.0, end: Callable[[int], None] = end_process) -> None:
        self._grace, self._end = grace, end
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """A sign of life: the limit counts from now."""
        self._beaten = time.monotonic()

    @contextmanager
    def __call__(self, phase: str, seconds: float) -> Iterator[None]:
        """Fail the block with a `RunError` once it has been silent for `seconds`. Blocks do not nest."""
        self.beat()
        watch = _Watch(self, phase, seconds, threading.get_ident())
        thread = threading.Thread(target=watch.run, name=f"watchdog: {phase}", daemon=True)
        try:
            with _signalled():
                thread.start()
                try:
                    yield
                finally:
                    watch.stop()
        except _Expired:
            pass
        if watch.fired:
            raise RunError(
                f"{phase}: no sign of life for {seconds:g} s, its limit in model.limits; the stacks of all threads are above"
            )


class _Watch:
    """One phase under watch."""

    def __init__(self, dog: Watchdog, phase: str, seconds: float, watched: int) -> None:
        self._dog, self._phase, self._seconds, self._watched = dog, phase, seconds, watched
        self._over, self._lock = threading.Event(), threading.Lock()
        self.fired = False

    def run(self) -> None:
        while not self._over.wait(max(0.0, self._dog._beaten + self._seconds - time.monotonic())):
            if time.monotonic() >= self._dog._beaten + self._seconds:
                self._fire()
                return

    def stop(self) -> None:
        """Called by the watched thread; afterwards nothing more is raised in it."""
        with self._lock:
            self._over.set()
            if self.fired and self._watched != threading.main_thread().ident:
                raise_in(self._watched, None)

    def _fire(self) -> None:
        with self._lock:
            if self._over.is_set():
                return
            self.fired = True
            _say(f"{self._phase}: no sign of life for {self._seconds:g} s. Stacks of all threads:\n{stacks()}")
            if self._watched == threading.main_thread().ident:
                signal.pthread_kill(self._watched, SIGNAL)
            else:
                raise_in(self._watched, _Expired)
        if not self._over.wait(self._dog._grace):
            _say(f"{self._phase}: stuck for {self._dog._grace:g} s more where Python cannot be interrupted")
            self._dog._end(1)


@contextmanager
def _signalled() -> Iterator[None]:
    """`SIGNAL` raises `_Expired` in the main thread, within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: Any) -> None:
        raise _Expired

    before = signal.signal(SIGNAL, expire)
    try:
        yield
    finally:
        signal.signal(SIGNAL, before)


def raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise it at the thread's next line of Python; None takes back what has not been raised yet."""
    value = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)


def stacks() -> str:
    """Where every thread is, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            parts.append(f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
