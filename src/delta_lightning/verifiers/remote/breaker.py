"""A circuit breaker: after failures in a row nobody asks for a while, then one question finds out."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed while the service answers; open for `cooldown` seconds after `failures` in a row; then one attempt decides.

    Args:
        failures: failed attempts in a row that open it, at least 1. cooldown: seconds that it stays open.
        clock: seconds, monotonic.
    """

    def __init__(self, *, failures: int, cooldown: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures, self._cooldown, self._clock = failures, cooldown, clock
        self._row = 0
        self._opened: float | None = None

    def allows(self) -> bool:
        """Whether the service may be asked now."""
        return self.remaining() <= 0

    def remaining(self) -> float:
        """Seconds until it may be asked; 0 if now."""
        return 0.0 if self._opened is None else max(0.0, self._opened + self._cooldown - self._clock())

    def answered(self) -> None:
        """It answered, whatever it said."""
        self._row, self._opened = 0, None

    def failed(self) -> None:
        """It did not. The attempt after a cool-down opens the breaker again by itself."""
        self._row += 1
        if self._row >= self._failures:
            self.open()

    def open(self) -> None:
        """Ask nobody for a cool-down, because the service itself said so."""
        self._row = max(self._row, self._failures)
        self._opened = self._clock()
