"""Programs that try to cheat, to escape, or to break their judge, through the whole verifier, in a pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.sandbox import Limits, Sandbox
from delta_lightning.types import Status
from delta_lightning.verifiers.code import CodeVerifier, WholeText
from delta_lightning.verifiers.code.sandboxes import DRIVERS
from delta_lightning.verifiers.pool import VerifierPool
from support.hostile import GOOD, TESTS, Outside, Program, programs, sample
from support.programs import completion_of, prompt_of

RUNGS = ("bwrap-root", "bwrap-user", "unshare", "landlock")
REFERENCE = {"test_list": [f"assert add{arguments} == {wanted}" for arguments, wanted in TESTS]}
LIMITS = Limits(memory_mib=128, cpu_seconds=6, processes=16, disk_mib=8)
SECONDS = 3.0
SAMPLE_SECONDS = 1.5


def complaints(rows: Sequence[Program], rung: str, limit: float = SECONDS) -> dict[str, list[str]]:
    """What does not hold, by program. After each, a right program must be found right by the same worker."""
    found: dict[str, list[str]] = {}
    with Outside() as outside:
        verifier = CodeVerifier(programs=WholeText(), seconds=limit, limits=LIMITS, rung=rung)
        with VerifierPool(verifier, workers=1, timeout=verifier.limit_seconds() + 2) as pool:
            for row in rows:
                pool.submit("hostile", prompt_of(REFERENCE), completion_of(row.code))
                ((_, verdict, seconds),) = pool.drain_timed()
                pool.submit("after", prompt_of(REFERENCE), completion_of(GOOD))
                ((_, after, _),) = pool.drain_timed()
                wrong = [f"an effect outside: {effect}" for effect in outside.effects()]
                passed = verdict.status is Status.CORRECT
                if passed and not row.may_pass:
                    wrong.append("it passed")
                if row.must_pass and not passed:
                    wrong.append("a right program failed")
                if verdict.status in (Status.ERROR, Status.UNAVAILABLE):
                    wrong.append("it made the verifier fail")
                if seconds > limit + 1.0:
                    wrong.append(f"the verdict took {seconds:.2f} s")
                if outside.secret in verdict.reason:
                    wrong.append("the secret came out")
                if after.status is not Status.CORRECT:
                    wrong.append(f"the next verdict was {after.status}: {after.reason}")
                if wrong:
                    found[row.id] = [*wrong, f"({verdict.status.value}: {verdict.reason})"]
    return found


@pytest.fixture(params=RUNGS)
def rung(request: pytest.FixtureRequest) -> str:
    """Each rung that this machine can enter."""
    name = str(request.param)
    try:
        Sandbox.open(drivers=DRIVERS, rung=name).close()
    except ConfigError as error:
        pytest.skip(str(error))
    return name


def test_a_sample_of_every_category() -> None:
    assert complaints(sample(programs(), 1), "auto", SAMPLE_SECONDS) == {}


@pytest.mark.data
def test_a_sample_of_the_shared_corpus(delta_data: Path) -> None:
    assert complaints(sample(programs(delta_data / "hostile_programs.jsonl"), 1), "auto", SAMPLE_SECONDS) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_programs_on_every_rung(rung: str) -> None:
    assert complaints(programs(), rung) == {}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shared_corpus_on_every_rung(rung: str, delta_data: Path) -> None:
    assert complaints(programs(delta_data / "hostile_programs.jsonl"), rung) == {}
