"""The hostile corpora on every rung that this machine can enter."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import hostile, rungs
from support.hostile import Program


def test_the_corpus_is_wide_and_well_formed() -> None:
    rows = hostile.programs()
    assert len(rows) >= 60
    assert len({row.id for row in rows}) == len(rows)
    assert {"fake-pass", "steal-tests", "time", "memory", "disk", "output", "process", "secrets", "network", "kernel"} <= {
        row.category for row in rows
    }
    assert all(row.expect.startswith(("must pass", "may pass", "must not pass")) for row in rows)
    assert sum(row.must_pass for row in rows) >= 3  # a sandbox in which everything fails must not look good


def test_a_sample_of_every_category_on_the_best_rung() -> None:
    best = next((rung for rung in rungs.ISOLATING if rungs.obstacle(rung) is None), None)
    if best is None:
        pytest.skip("no rung of the sandbox can be entered here")
    findings = rungs.judged(best, hostile.sample(hostile.programs(), 2), limit=1.0)
    assert [finding for finding in findings if finding.complaints] == []


def test_the_watch_outside_sees_what_it_must_see() -> None:
    with hostile.Outside() as outside:
        assert outside.effects() == []
        (hostile.OUTSIDE / "hostile_marker").touch()
        Path("/dev/shm/hostile-left").touch()
        outside._victim.kill()
        outside._victim.wait()
        found = outside.effects()
        assert str(hostile.OUTSIDE / "hostile_marker") in found
        assert "/dev/shm/hostile-left" in found
        assert "the bait process was killed or stopped" in found
        assert not Path("/dev/shm/hostile-left").exists()


def test_complaints_name_what_is_wrong() -> None:
    row = Program(id="x", category="x", description="x", code="x", expect="must not pass")
    right = Program(id="x", category="x", description="x", code="x", expect="must pass")
    outcome = hostile.Outcome(passed=True, reason="", seconds=9.0, said="", survivors=("sleep (12)",))
    assert hostile.complaints(row, outcome, None, limit=1.0) == [
        "it passed",
        "the verdict took 9.00 s",
        "left behind: sleep (12)",
    ]
    failed = hostile.Outcome(passed=False, reason="not loaded", seconds=0.1, said="", survivors=())
    assert hostile.complaints(right, failed, None, limit=1.0) == ["a right program failed: not loaded"]
    assert hostile.complaints(row, failed, None, limit=1.0) == []


def _all(shared: Path | None) -> list[Program]:
    return hostile.programs() + (hostile.programs(shared / "hostile_programs.jsonl") if shared else [])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("rung", rungs.ISOLATING)
def test_every_program_on_every_rung(rung: str, delta_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rungs.need(rung)
    findings = rungs.judged(rung, _all(delta_data), limit=2.0)
    with capsys.disabled():
        print("\n" + rungs.report(f"{rung} as this user", findings))
    assert [finding for finding in findings if finding.complaints] == []


@pytest.mark.slow
@pytest.mark.data
def test_every_program_on_landlock_with_a_uid_of_its_own(delta_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rungs.need("landlock", rungs._PYTHON)
    findings = rungs.judged("landlock", _all(delta_data), limit=2.0, python=rungs._PYTHON)
    with capsys.disabled():
        print("\n" + rungs.report(f"landlock with {rungs._PYTHON}", findings))
    assert [finding for finding in findings if finding.complaints] == []


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("rung", rungs.ISOLATING[1:])
def test_every_program_on_every_rung_without_root(rung: str, delta_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rungs.need_nobody(rung)
    findings = rungs.judged_as_nobody(rung, _all(delta_data), limit=2.0)
    with capsys.disabled():
        print("\n" + rungs.report(f"{rung} as uid {rungs.NOBODY}", findings))
    assert [finding for finding in findings if finding.complaints] == []
