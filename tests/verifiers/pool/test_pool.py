from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.pool import VerifierPool
from support.verdicts import Obedient, Unready, alive, ask, completion_of, gone, prompt_with

LIMIT = 1.0


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(Obedient(), workers=2, timeout=LIMIT) as running:
        yield running


def test_every_item_gets_its_own_verdict_whatever_the_order(pool: VerifierPool) -> None:
    texts = [f"give {number}" for number in range(500)]
    random.Random(3).shuffle(texts)
    assert [verdict.reward for verdict in ask(pool, *texts)] == [float(text.split()[1]) for text in texts]


def test_slow_items_do_not_change_the_others(pool: VerifierPool) -> None:
    texts = ["sleep 0.2" if number % 10 == 0 else f"give {number}" for number in range(40)]
    assert [verdict.reward for verdict in ask(pool, *texts)][1::10] == [1.0, 11.0, 21.0, 31.0]


@pytest.mark.parametrize("command", ["sleep 60", "hang", "signal 19"])  # 19: stops itself
def test_a_late_verdict_is_a_timeout_and_the_pool_answers_right_after(pool: VerifierPool, command: str) -> None:
    ask(pool, "give 1", "give 1")
    start = time.monotonic()
    verdicts = ask(pool, command, *(f"give {number}" for number in range(30)))
    assert verdicts[0].status is Status.TIMEOUT
    assert verdicts[0].reward == 0.0
    assert [verdict.reward for verdict in verdicts[1:]] == list(range(30))  # those behind it in its batch too
    assert LIMIT <= time.monotonic() - start < LIMIT + 1.0
    assert ask(pool, "give 5")[0].reward == 5.0


def test_the_limit_holds_for_each_item_and_not_for_the_queue(pool: VerifierPool) -> None:
    verdicts = ask(pool, *["sleep 0.1"] * 40)  # 2 s per worker, in batches of up to 10
    assert {verdict.status for verdict in verdicts} == {Status.CORRECT}


def test_a_trainer_that_looks_away_makes_nobody_late(pool: VerifierPool) -> None:
    ask(pool, "give 1", "give 1")
    for key in range(16):
        pool.submit(key, prompt_with("42"), completion_of("sleep 0.02"))
    time.sleep(2 * LIMIT)
    assert {verdict.status for _, verdict in pool.drain()} == {Status.CORRECT}


def test_a_verdict_that_came_late_while_nobody_looked_is_late(pool: VerifierPool) -> None:
    ask(pool, "give 1", "give 1")
    pool.submit("late", prompt_with("42"), completion_of(f"sleep {1.5 * LIMIT}"))
    time.sleep(2 * LIMIT)
    assert [(key, verdict.status) for key, verdict in pool.drain()] == [("late", Status.TIMEOUT)]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("raise no such thing", "ValueError: no such thing"),
        ("exit", "SystemExit: 3"),
        ("recurse", "RecursionError"),
        ("die 7", "exit status 7"),
        ("die 0", "exit status 0"),
        (f"signal {int(signal.SIGSEGV)}", "SIGSEGV"),
        (f"signal {int(signal.SIGKILL)}", "SIGKILL"),
        ("return", "NoneType"),
        ("nan", "nan"),
        ("unpicklable", "cannot be sent"),
    ],
)
def test_a_failure_is_an_error_of_its_item_alone(pool: VerifierPool, command: str, reason: str) -> None:
    texts = [f"give {number}" for number in range(40)]
    texts[13] = command
    verdicts = ask(pool, *texts)
    assert verdicts[13].status is Status.ERROR
    assert reason in verdicts[13].reason
    assert [verdict.reward for verdict in verdicts if verdict.status is Status.CORRECT] == [
        float(number) for number in range(40) if number != 13
    ]


def test_every_item_of_a_batch_may_kill_its_worker() -> None:
    with VerifierPool(Obedient(), workers=1, timeout=LIMIT) as pool:
        verdicts = ask(pool, *["die 1"] * 4, "give 3")
    assert [verdict.status for verdict in verdicts] == [Status.ERROR] * 4 + [Status.CORRECT]


def test_ten_thousand_items(pool: VerifierPool) -> None:
    verdicts = ask(pool, *(f"give {number}" for number in range(10_000)))
    assert sum(verdict.reward for verdict in verdicts) == 49_995_000.0


def test_poll_returns_at_once_and_everything_once(pool: VerifierPool) -> None:
    assert pool.poll() == []
    ask(pool, "give 1", "give 1")
    start = time.monotonic()
    pool.submit("slow", prompt_with("42"), completion_of("sleep 0.5"))
    pool.submit("fast", prompt_with("42"), completion_of("give 2"))
    assert time.monotonic() - start < 0.1
    found: list[tuple[Hashable, Verdict]] = []
    while len(found) < 2 and time.monotonic() - start < 5:
        calls = time.monotonic()
        found += pool.poll()
        assert time.monotonic() - calls < 0.1
        time.sleep(0.005)
    assert [key for key, _ in found] == ["fast", "slow"]
    assert list(pool.drain()) == []


def test_drain_reports_progress_and_can_be_interrupted(pool: VerifierPool) -> None:
    seen: list[tuple[int, int]] = []
    for key in range(5):
        pool.submit(key, prompt_with("42"), completion_of("sleep 0.3"))
    for _ in pool.drain(lambda finished, submitted: seen.append((finished, submitted))):
        pass
    assert seen[-1] == (5, 5)
    assert seen == sorted(seen)
    assert len(seen) > 3  # also between verdicts

    def interrupt(finished: int, submitted: int) -> None:
        raise KeyboardInterrupt

    pool.submit("a", prompt_with("42"), completion_of("sleep 0.5"))
    with pytest.raises(KeyboardInterrupt):
        list(pool.drain(interrupt))
    assert [key for key, _ in pool.drain()] == ["a"]  # nothing was lost


def test_items_may_be_submitted_while_draining_and_keys_may_repeat(pool: VerifierPool) -> None:
    pool.submit("k", prompt_with("42"), completion_of("give 1"))
    rewards = []
    for key, verdict in pool.drain():
        rewards.append(verdict.reward)
        if len(rewards) < 4:
            pool.submit(key, prompt_with("42"), completion_of(f"give {len(rewards) + 1}"))
    assert rewards == [1.0, 2.0, 3.0, 4.0]


def test_large_completions_in_both_directions(pool: VerifierPool) -> None:
    texts = ["give 1 " + "x" * 1_000_000] * 40
    assert {verdict.status for verdict in ask(pool, *texts)} == {Status.ERROR}  # float("1 xxx")
    assert all(len(verdict.reason) <= 500 for verdict in ask(pool, *texts))


def test_reasons_can_be_written(pool: VerifierPool) -> None:
    """A program's error may hold half a surrogate pair, which no file and no terminal takes."""
    (verdict,) = ask(pool, "raise half \ud800 of a pair")
    assert verdict.reason.encode().endswith(b"half \\ud800 of a pair")


def test_workers_are_light_and_leave_the_keyboard_alone(pool: VerifierPool) -> None:
    modules, handler, logprobs = ask(pool, "modules", "handler", "logprobs")
    assert {"torch", "lightning", "transformers", "numpy"}.isdisjoint(modules.reason.split())
    assert handler.reward == 1.0
    assert logprobs.reward == 0.0
    assert logprobs.reason == "(3, 4)"


def test_fields_of_the_verifier_arrive() -> None:
    with VerifierPool(Obedient(scale=3.0), workers=1, timeout=LIMIT) as pool:
        assert ask(pool, "give 2")[0].reward == 6.0


def test_close_twice_and_no_use_afterwards() -> None:
    pool = VerifierPool(Obedient(), workers=2, timeout=LIMIT)
    pids = [int(verdict.reason) for verdict in ask(pool, *["pid"] * 50)]
    pool.submit("unanswered", prompt_with("42"), completion_of("sleep 60"))
    start = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - start < 1.0
    assert gone(pids, 0.5)
    for use in (pool.poll, lambda: list(pool.drain()), lambda: pool.submit(0, prompt_with("1"), completion_of("give 1"))):
        with pytest.raises(RunError, match="closed"):
            use()


def test_a_forgotten_pool_leaves_nothing_behind() -> None:
    pool = VerifierPool(Obedient(), workers=1, timeout=LIMIT)
    pids = [int(ask(pool, "pid")[0].reason)]
    assert alive(pids[0])
    del pool
    assert gone(pids)


def test_a_fork_of_the_trainer_does_not_close_the_pool(pool: VerifierPool) -> None:
    ask(pool, "give 1")
    child = os.fork()
    if child == 0:
        pool.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert ask(pool, "give 4")[0].reward == 4.0


def test_a_pool_of_a_thread_that_ended_lives_on() -> None:
    """The kernel's signal at a parent's death is sent when the *thread* ends that started the child."""
    made: list[tuple[VerifierPool, str]] = []

    def make() -> None:
        pool = VerifierPool(Obedient(), workers=1, timeout=LIMIT)
        made.append((pool, ask(pool, "pid")[0].reason))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    time.sleep(0.2)
    pool, pid = made[0]
    with pool:
        assert ask(pool, "pid")[0].reason == pid


@pytest.mark.parametrize(("how", "message"), [("raise", "no module named mathematics"), ("die", "exit status 9")])
def test_a_verifier_that_cannot_start_stops_the_run(how: str, message: str) -> None:
    with VerifierPool(Unready(how=how), workers=1, timeout=LIMIT) as pool:
        pool.submit(0, prompt_with("42"), completion_of("x"))
        with pytest.raises(RunError, match=message):
            list(pool.drain())


@dataclass(frozen=True, kw_only=True)
class WithLock(Verifier):
    lock: object = field(default_factory=threading.Lock)

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        return Verdict(status=Status.CORRECT, reward=1.0)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="pickle"):
        VerifierPool(WithLock(), workers=1, timeout=1.0)
    with pytest.raises(ConfigError, match="workers"):
        VerifierPool(Obedient(), workers=0, timeout=1.0)
    with pytest.raises(ConfigError, match="timeout"):
        VerifierPool(Obedient(), workers=1, timeout=0.0)


def test_a_verifier_defined_in_the_main_script(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            from delta_lightning.interfaces import Verifier
            from delta_lightning.types import Status, Verdict
            from delta_lightning.verifiers.pool import VerifierPool
            from support.verdicts import completion_of, prompt_with

            @dataclass(frozen=True, kw_only=True)
            class Own(Verifier):
                def score(self, prompt, completion):
                    return Verdict(status=Status.CORRECT, reward=0.25)

            if __name__ == "__main__":
                with VerifierPool(Own(), workers=1, timeout=5) as pool:
                    pool.submit(0, prompt_with("1"), completion_of("1"))
                    print([verdict.reward for _, verdict in pool.drain()])
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.strip() == "[0.25]", done.stderr


@pytest.fixture(scope="module")
def mathematics() -> Iterator[VerifierPool]:
    with VerifierPool(MathVerifier(), workers=2, timeout=1.0) as running:
        yield running


def test_mathematics_in_the_pool(mathematics: VerifierPool) -> None:
    for key, (gold, answer) in enumerate([("42", "42"), ("42", "41"), ("\\sqrt{8}", "2\\sqrt{2}")]):
        mathematics.submit(key, prompt_with(gold), completion_of(f"\\boxed{{{answer}}}"))
    mathematics.submit(3, prompt_with("42"), completion_of("42"))
    found = {key: verdict.status for key, verdict in mathematics.drain()}
    assert found == {0: Status.CORRECT, 1: Status.INCORRECT, 2: Status.CORRECT, 3: Status.NO_ANSWER}


def test_answers_that_explode_are_timeouts_or_wrong(mathematics: VerifierPool) -> None:
    bombs = ["9^{9^{9^9}}", "10000000!", "\\binom{10^9}{5 \\times 10^8}", "(" * 400 + "1" + ")" * 400, "(x+y+z+w)^{60}"]
    start = time.monotonic()
    for key, bomb in enumerate(bombs):
        mathematics.submit(key, prompt_with("\\sqrt{5}"), completion_of(f"\\boxed{{{bomb}}}"))
    found = dict(mathematics.drain())
    assert {found[key].status for key in found} <= {Status.TIMEOUT, Status.INCORRECT}
    assert len(found) == len(bombs)
    assert time.monotonic() - start < 20
    mathematics.submit("after", prompt_with("42"), completion_of("\\boxed{42}"))
    assert dict(mathematics.drain())["after"].status is Status.CORRECT


def test_256_easy_answers_are_quick(mathematics: VerifierPool) -> None:
    seconds = []
    for _ in range(5):
        start = time.monotonic()
        for key in range(256):
            mathematics.submit(key, prompt_with("42"), completion_of(f"step by step \\boxed{{{key}}}"))
        assert sum(verdict.reward for _, verdict in mathematics.drain()) == 1.0
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 0.2  # 0.03 s on two idle cores


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.text(max_size=40), st.binary(max_size=40).map(lambda raw: raw.decode("latin-1"))), max_size=8))
def test_any_text_gets_a_verdict(mathematics: VerifierPool, noises: list[str]) -> None:
    for key, noise in enumerate(noises):
        mathematics.submit(key, prompt_with("42"), completion_of("\\boxed{" + noise + "}"))
    assert {key for key, _ in mathematics.drain()} == set(range(len(noises)))
