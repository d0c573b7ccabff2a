"""The self-test passes where the rung holds, and names the probe that gets through where it does not."""

from __future__ import annotations

import dataclasses

import pytest

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.sandbox import Report, Sandbox, probes, self_test
from delta_lightning.sandbox import sandbox as sandbox_module
from delta_lightning.sandbox.landlock import Landlock
from delta_lightning.sandbox.rung import PROBES, Plan
from delta_lightning.sandbox.unsafe import Unsafe
from support import rungs


@pytest.mark.parametrize("rung", rungs.ISOLATING)
def test_every_promise_of_every_rung_holds(rung: str) -> None:
    rungs.need(rung)
    report = self_test(rung)
    assert 0 < report.seconds < 20  # about a second on a quiet machine
    assert report.rung.name == rung
    assert set(report.open) == set(PROBES)
    assert not any(report.open[name] for name in report.rung.promises())
    assert report.lines[0].startswith(f"Sandbox: {rung}.")
    assert all(any(line in told for told in report.lines) for line in (*report.rung.guarantees, *report.rung.missing))


@pytest.mark.parametrize("rung", rungs.ISOLATING[1:])
def test_every_promise_holds_without_root(rung: str) -> None:
    rungs.need_nobody(rung)
    code = "import sys\nfrom delta_lightning.sandbox import self_test\nprint(*self_test(sys.argv[1]).lines, sep='\\n')"
    done = rungs.as_nobody("-c", code, rung)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Sandbox: {rung}.")


def test_without_isolation_the_probes_do_get_through() -> None:
    """The probes can fail: a self-test whose probes never get anywhere would be worth nothing."""
    report = self_test("unsafe", allow_unsafe=True)
    assert {name for name, through in report.open.items() if through} >= {"files", "writes", "network", "sight", "signals"}
    assert "NOT stopped: files" in report.lines[0]


@pytest.mark.parametrize("name", ["files", "writes", "network", "sight", "signals"])
def test_a_broken_promise_is_an_error_that_names_the_probe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unsafe, "promises", lambda self: frozenset({name}))
    with pytest.raises(ConfigError, match=f"programs that got through: {name}"):
        self_test("unsafe", allow_unsafe=True)


def test_a_rung_whose_wall_is_missing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Landlock without its file rules and without its filter, and yet with all its promises."""
    rungs.need("landlock")
    launch = Landlock.launch

    def weak(self: Landlock, *args: object) -> object:
        made = launch(self, *args)  # type: ignore[arg-type]
        plan: Plan = dataclasses.replace(made.plan, landlock=None, seccomp=None, walls=False)
        return dataclasses.replace(made, plan=plan)

    monkeypatch.setattr(Landlock, "launch", weak)
    with pytest.raises(ConfigError, match=r"files.*network.*sight.*signals.*writes"):
        self_test("landlock")


def test_a_probe_that_does_not_run_is_never_taken_for_a_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    rung = next(rung for rung in (*rungs.ISOLATING, "unsafe") if rungs.obstacle(rung) is None)
    start = Sandbox.start

    def silent(self: Sandbox, entry: str, **more: object) -> object:
        return start(self, entry if entry.startswith("_") else "probes:not_there", **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Sandbox, "start", silent)
    with pytest.raises(RunError, match="not_there"):
        self_test(rung, allow_unsafe=True)


def test_refused_rungs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = sandbox_module.wanted("auto", allow_unsafe=True)
    for kind in kinds[:-1]:
        monkeypatch.setattr(kind, "obstacle", lambda self: "not today")
    report = self_test("auto", allow_unsafe=True)
    assert isinstance(report, Report)
    assert [line for line in report.lines if "could not enter" in line] == [
        f"  could not enter {kind.name}: not today" for kind in kinds[:-1]
    ]


def test_each_probe_has_a_program() -> None:
    for name in PROBES:
        assert callable(getattr(probes, f"_{name}"))
