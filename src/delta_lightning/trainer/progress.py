"""What the run is doing, on one line: rewritten in a terminal, printed now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

import torch

Result = TypeVar("Result")

PLAIN_INTERVAL = 10.0  # seconds between lines where the line cannot be rewritten
FAST_INTERVAL = 0.1


class GivenUp(BaseException):
    """Raised by a guard inside `Progress.together`: this rank leaves the phase, and meets the others at its end."""


class Progress:
    """Phases of the run as they happen: `progress("sample", 12, 256)`.

    Args:
        stream: where to write; None is silent (other ranks).
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._live = stream is not None and stream.isatty()
        self._last, self._width, self._context = 0.0, 0, ""
        self.guard: Callable[[], None] = lambda: None  # may raise to interrupt a long phase
        self.meet: Callable[[], None] = lambda: None  # collective; raises on every rank if one of them gave up
        self.may_give_up = False  # within `together`

    @classmethod
    def for_rank(cls, rank: int) -> Progress:
        """On stderr for rank 0, silent for the others."""
        return cls(sys.stderr if rank == 0 else None)

    def together(self, work: Callable[[], Result]) -> Result:
        """What `work` gives. It has no collectives, so that a rank may give it up alone; the others hear of it at the end."""
        self.may_give_up = True
        try:
            result = work()
        except GivenUp:
            self.meet()
            raise
        finally:
            self.may_give_up = False
        self.meet()
        return result

    @property
    def active(self) -> bool:
        """True if anything is written."""
        return self._stream is not None

    def context(self, text: str) -> None:
        """What stands before every phase, for example `step 3/40`."""
        self._context = text

    def __call__(self, phase: str, done: int, total: int, note: str = "") -> None:
        """Show `phase: done/total note`; cheap to call often."""
        self.guard()
        self.show(phase, done, total, note)

    def show(self, phase: str, done: int, total: int, note: str = "") -> None:
        """The same where the run cannot stop: it is not interrupted in here."""
        if self._stream is None:
            return
        now = time.monotonic()
        if now - self._last < (FAST_INTERVAL if self._live else PLAIN_INTERVAL):
            return
        self._last = now
        parts = [self._context, f"{phase} {done}/{total}", note]
        self._write("  ".join(part for part in parts if part))

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._stream is not None:
            clear = "\r" + " " * self._width + "\r" if self._live and self._width else ""
            self._stream.write(f"{clear}{text}\n")
            self._stream.flush()
            self._width = 0

    def _write(self, text: str) -> None:
        assert self._stream is not None
        if self._live:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def kernels_done() -> None:
    """Wait for the kernels of this thread's GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class PhaseClock:
    """Seconds per phase.

    Args:
        settle: called at the end of a phase: on a GPU it ends when its kernels have.
    """

    def __init__(self, settle: Callable[[], None] = kernels_done) -> None:
        self._seconds: dict[str, float] = {}
        self._settle = settle

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block as part of `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._settle()
            self.add(phase, time.perf_counter() - start)

    def add(self, phase: str, seconds: float) -> None:
        """Add time that was measured elsewhere."""
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call, 0 for phases that ran only before it: their last value is not the present."""
        seconds, self._seconds = self._seconds, dict.fromkeys(self._seconds, 0.0)
        return seconds
