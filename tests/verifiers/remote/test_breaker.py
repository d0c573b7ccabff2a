from __future__ import annotations

from delta_lightning.verifiers.remote.breaker import Breaker


def test_opens_after_failures_in_a_row_and_one_attempt_decides() -> None:
    now = [0.0]
    breaker = Breaker(failures=2, cooldown=10.0, clock=lambda: now[0])
    breaker.failed()
    breaker.answered()
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()
    now[0] = 9.9
    assert not breaker.allows()
    assert abs(breaker.remaining() - 0.1) < 1e-9
    now[0] = 10.0
    assert breaker.allows()
    breaker.failed()
    assert breaker.remaining() == 10.0
    now[0] = 20.0
    breaker.answered()
    breaker.failed()
    assert breaker.allows()
    breaker.open()
    assert not breaker.allows()
    now[0] = 30.0
    breaker.failed()
    assert not breaker.allows()
