from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from delta_lightning.errors import RunError
from delta_lightning.types import Status
from delta_lightning.verifiers.pool import VerifierPool
from support.verdicts import Obedient, ShortLived, alive, ask, completion_of, gone, prompt_with

LIMIT = 1.0


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(Obedient(), workers=2, timeout=LIMIT) as running:
        yield running


def test_a_worker_that_dies_idle_is_replaced_and_nobody_blamed(pool: VerifierPool) -> None:
    pids = {int(verdict.reason) for verdict in ask(pool, *["pid"] * 200)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert {verdict.status for verdict in ask(pool, *(f"give {number}" for number in range(40)))} == {Status.CORRECT}
    assert pool.counts.replaced == len(pids)
    assert gone(list(pids))


def test_an_item_whose_worker_died_runs_once_more(pool: VerifierPool, tmp_path: Path) -> None:
    verdicts = ask(pool, f"once {tmp_path / 'seen'}", *(f"give {number}" for number in range(20)))
    assert {verdict.status for verdict in verdicts} == {Status.CORRECT}
    assert (pool.counts.retried, pool.counts.replaced) == (1, 1)


def test_every_status_passes_through(pool: VerifierPool) -> None:
    names = ["unavailable", "error", "no_answer", "timeout"]
    assert [verdict.status.value for verdict in ask(pool, *(f"{name} because" for name in names))] == names


def test_what_a_verifier_started_dies_with_its_worker(pool: VerifierPool, tmp_path: Path) -> None:
    assert ask(pool, f"orphan {tmp_path / 'pid'}")[0].status is Status.TIMEOUT
    assert gone([int((tmp_path / "pid").read_text())])


@pytest.mark.parametrize("kind", ["plain", "detached"])
@pytest.mark.parametrize("end", ["late", "killed", "closed", "recycled"])
def test_nothing_outlives_its_worker(tmp_path: Path, kind: str, end: str) -> None:
    """A child in the worker's group, and one in a session of its own that asked for the kernel's signal."""
    file = tmp_path / "pid"
    with VerifierPool(Obedient(), workers=1, timeout=LIMIT, recycle_after=2 if end == "recycled" else 0) as pool:
        worker = int(ask(pool, f"{kind} {file}", "pid")[1].reason)
        child = int(file.read_text())
        assert end == "recycled" or alive(child)
        if end == "late":
            ask(pool, "sleep 60")
        elif end == "killed":
            os.kill(worker, signal.SIGKILL)
        elif end == "closed":
            pool.close()
        else:
            ask(pool, "give 1")
        assert gone([worker, child])


def test_limits_hold_while_nobody_looks() -> None:
    """The trainer submits and goes away; every item is answered in its time, and late ones do not hold up the others."""
    with VerifierPool(Obedient(), workers=1, timeout=0.5) as pool:
        ask(pool, "give 1")
        for key, text in enumerate(["sleep 60", "give 1", "hang", "sleep 0.1", "give 2"]):
            pool.submit(key, prompt_with("42"), completion_of(text))
        time.sleep(5.0)
        found = dict(pool.poll())
    assert [found[key].status for key in range(5)] == [Status.TIMEOUT, Status.CORRECT] * 2 + [Status.CORRECT]


def test_every_verdict_comes_within_its_limit_and_a_second() -> None:
    with VerifierPool(Obedient(), workers=2, timeout=0.4) as pool:
        for key in range(12):
            pool.submit(key, prompt_with("42"), completion_of("sleep 60" if key % 2 else "sleep 0.2"))
        timed = {key: (verdict, seconds) for key, verdict, seconds in pool.drain_timed()}
        assert pool.counts.timeouts == 6
    assert all(seconds < 1.4 for _, seconds in timed.values())
    assert all(timed[key][0].status is (Status.TIMEOUT if int(str(key)) % 2 else Status.CORRECT) for key in timed)


def test_a_stopped_worker_does_not_hold_up_the_pool() -> None:
    """It does not read what it is sent; the write must not block the thread that watches the others."""
    with VerifierPool(Obedient(), workers=2, timeout=2.0) as pool:
        pids = {int(verdict.reason) for verdict in ask(pool, *["pid"] * 400)}
        os.kill(min(pids), signal.SIGSTOP)
        start = time.monotonic()
        verdicts = ask(pool, *["give 1" + " " * 3_000_000] * 8)
        assert {verdict.status for verdict in verdicts} == {Status.CORRECT}
        assert time.monotonic() - start < 10
        assert pool.counts.replaced == 1


def test_submit_waits_where_too_much_is_pending() -> None:
    with VerifierPool(Obedient(), workers=1, timeout=5.0, pending_mib=1) as pool:
        ask(pool, "give 1")
        seen: list[tuple[int, int]] = []
        for key in range(3):  # the first is larger than the bound: it passes when nothing else is pending
            text = f"sleep {0.5 if key < 2 else 0.0}" + " " * (2_000_000 if key == 0 else 1000)
            pool.submit(key, prompt_with("42"), completion_of(text), lambda done, all_: seen.append((done, all_)))
        assert seen
        assert set(seen) <= {(0, 1), (1, 1)}
        assert 0.3 < pool.counts.waited_seconds < 3.0
        assert len(list(pool.drain())) == 3

        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        pool.submit("big", prompt_with("42"), completion_of("sleep 1" + " " * 2_000_000))
        with pytest.raises(KeyboardInterrupt):
            pool.submit("never", prompt_with("42"), completion_of("give 1"), interrupt)
        assert [key for key, _ in pool.drain()] == ["big"]


def test_a_worker_that_grows_is_killed_and_its_item_blamed_the_second_time() -> None:
    with VerifierPool(Obedient(), workers=2, timeout=30.0, worker_memory_mib=300) as pool:
        start = time.monotonic()
        verdicts = ask(pool, "grow 600", *(f"give {number}" for number in range(20)))
        assert time.monotonic() - start < 10
        assert verdicts[0].status is Status.TIMEOUT
        assert "300 MiB" in verdicts[0].reason
        assert [verdict.reward for verdict in verdicts[1:]] == list(range(20))
        assert (pool.counts.retried, pool.counts.timeouts) == (1, 1)


def test_a_verifier_that_leaks_gets_fresh_workers_and_no_verdict_changes() -> None:
    with VerifierPool(Obedient(), workers=1, timeout=10.0, worker_memory_mib=250) as pool:
        assert {verdict.status for verdict in ask(pool, *["leak 30"] * 40)} == {Status.CORRECT}
        assert pool.counts.retried + pool.counts.recycled >= 2


def test_workers_are_recycled_after_so_many_items() -> None:
    with VerifierPool(Obedient(), workers=1, timeout=LIMIT, recycle_after=8) as pool:
        pids = [verdict.reason for verdict in ask(pool, *["pid"] * 60)]
        assert 3 <= len(set(pids)) <= 8
        assert pool.counts.recycled >= 3
        assert (pool.counts.verdicts, pool.counts.replaced) == (60, 0)


def test_workers_that_keep_dying_stop_the_run() -> None:
    def wait(pool: VerifierPool) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            pool.poll()
            time.sleep(0.05)

    with VerifierPool(ShortLived(), workers=1, timeout=LIMIT) as pool, pytest.raises(RunError, match="4 verifier processes"):
        wait(pool)


SCRIPT = """
import sys, time
assert "marker" not in sys.modules
open(sys.argv[1], "a").write("imported\\n")  # a script without a guard: it must not run again in the workers
from support.verdicts import Obedient, completion_of, prompt_with
from delta_lightning.verifiers.pool import VerifierPool

pool = VerifierPool(Obedient(), workers=2, timeout=30)
for key in range(64):
    pool.submit(key, prompt_with("42"), completion_of("pid"))
print(" ".join({verdict.reason for _, verdict in pool.drain()}), flush=True)
for number, kind in enumerate(["plain", "detached"]):
    pool.submit(number, prompt_with("42"), completion_of(f"{kind} {sys.argv[1]}.{kind}"))
list(pool.drain())
pool.submit(0, prompt_with("42"), completion_of("hang"))
pool.submit(1, prompt_with("42"), completion_of("sleep 600"))
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("launch", ["script", "module"])
def test_no_orphans_after_the_trainer_dies(tmp_path: Path, how: signal.Signals, launch: str) -> None:
    script, log = tmp_path / "trainer_script.py", tmp_path / "log"
    script.write_text(textwrap.dedent(SCRIPT))
    search = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path), os.environ.get("PYTHONPATH", "")])
    arguments = [str(script)] if launch == "script" else ["-m", "trainer_script"]
    trainer = subprocess.Popen(
        [sys.executable, *arguments, str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert trainer.stdout is not None
    pids = [int(word) for word in trainer.stdout.readline().split()]
    assert pids and all(alive(pid) for pid in pids)
    time.sleep(0.5)  # one worker is now deep in a C call that looks at no socket
    pids += [int(Path(f"{log}.{kind}").read_text()) for kind in ("plain", "detached")]  # what the verifier started
    assert all(alive(pid) for pid in pids)
    trainer.send_signal(how)
    trainer.wait(10)
    trainer.stdout.close()
    assert gone(pids)
    assert log.read_text() == "imported\n"
