"""A phase that shows no life for its limit ends in an error that names it, or ends the process."""

from __future__ import annotations

import queue
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.trainer.watchdog import SIGNAL, Limits, Watchdog


def test_a_phase_in_time_leaves_nothing_behind() -> None:
    import signal

    before, threads = signal.getsignal(SIGNAL), threading.active_count()
    with Watchdog()("sampling", 60):
        pass
    time.sleep(0.05)
    assert signal.getsignal(SIGNAL) == before and threading.active_count() == threads


@pytest.mark.parametrize(
    "wait",
    [
        lambda: time.sleep(30),
        lambda: queue.SimpleQueue().get(),
        lambda: threading.Lock().acquire() and threading.Event().wait(),
    ],
)
def test_silence_ends_in_an_error_that_names_the_phase(wait: object, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    with (
        pytest.raises(RunError, match=r"starting the sampler: no sign of life for 0\.3 s"),
        Watchdog()("starting the sampler", 0.3),
    ):
        wait()  # type: ignore[operator]
    assert time.monotonic() - start < 10
    err = capsys.readouterr().err
    assert "Stacks of all threads" in err and "test_watchdog.py" in err


def test_a_loop_that_computes_is_ended_too() -> None:
    def compute() -> None:
        while True:
            pass

    with pytest.raises(RunError, match="sampling"), Watchdog()("sampling", 0.3):
        compute()


def test_signs_of_life_count() -> None:
    watch = Watchdog()
    with watch("sampling", 0.4):
        for _ in range(10):
            time.sleep(0.1)
            watch.beat()

    def fall_silent() -> None:
        time.sleep(0.1)
        watch.beat()
        time.sleep(30)

    with pytest.raises(RunError, match="sampling"), watch("sampling", 0.4):
        fall_silent()


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), Watchdog()("sampling", 60):
        raise ZeroDivisionError


def test_threads_that_are_not_the_main_one_are_watched_too() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with Watchdog()("sampling", 0.3):
                while True:
                    time.sleep(0.01)
        except RunError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert not thread.is_alive() and "sampling" in str(caught[0])


def test_a_kernel_that_never_returns_ends_the_process() -> None:
    """Sleeping in C with signals blocked: nothing can be raised there, as in a kernel that hangs."""
    code = textwrap.dedent("""
        import ctypes, signal
        from delta_lightning.trainer.watchdog import SIGNAL, Watchdog
        with Watchdog(grace=0.5)("updating the sampler's weights", 0.5):
            libc = ctypes.CDLL(None)
            signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
            libc.sleep(60)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "updating the sampler's weights: stuck" in done.stderr and "Stacks of all threads" in done.stderr


def test_limits_are_positive() -> None:
    with pytest.raises(ConfigError, match=r"limits\.sync_seconds"):
        Limits(sync_seconds=0)
