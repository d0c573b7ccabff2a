from __future__ import annotations

from typing import Any

from delta_lightning.cli.graded import Graded, report, share_of
from delta_lightning.types import Status, Verdict


def row(status: str, reward: float = 0.0, *, label: bool | None = None, seconds: float = 0.01, **more: Any) -> Graded:
    place = {name: more.pop(name) for name in ("id", "source", "tail") if name in more}
    verdict = Verdict(status=Status(status), reward=reward, **more)
    return Graded(**({"id": "p", "source": "s", "tail": "the end"} | place), label=label, verdict=verdict, seconds=seconds)


def cells(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_statuses_rewards_and_times() -> None:
    graded = [row("correct", 1.0, seconds=second / 1000) for second in range(1, 101)]
    graded += [row("incorrect", 0.5, seconds=0.2)] * 50 + [row("error", reason="broken")] * 50
    text = report(graded, examples=0)
    assert cells(text, "correct") == ["correct", "100", "50.0", "%", "1.000", "50.50", "50.00", "99.00", "100.00"]
    assert cells(text, "incorrect") == ["incorrect", "50", "25.0", "%", "0.500", "200.00", "200.00", "200.00", "200.00"]
    assert cells(text, "error")[:5] == ["error", "50", "25.0", "%", "-"]  # no reward: it says nothing of the answer
    assert cells(text, "all")[:5] == ["all", "200", "100.0", "%", "0.833"]  # of the 150 that were judged
    assert "timeout" not in text
    assert "label" not in text
    assert share_of(graded, Status.ERROR) == 0.25


def test_agreement_and_the_rows_that_disagree() -> None:
    graded = (
        [row("correct", 1.0, label=True)] * 6 + [row("incorrect", label=False)] * 2 + [row("no_answer", label=True, id="lost")]
    )
    graded += [row("correct", 1.0, label=False, id=f"false {number}") for number in range(3)]
    graded += [row("unavailable", label=True), row("timeout", label=False), row("incorrect")]
    text = report(graded, examples=2)
    assert cells(text, "true") == ["true", "6", "1", "1"]
    assert cells(text, "false") == ["false", "3", "3", "0"]
    assert "agreement with labels: 9 of 13 (69.23 %)" in text
    listed = text.partition("rows that disagree:\n")[2].partition("\n\n")[0]
    assert "  lost  label true, no_answer\n" in listed
    assert "  false 0  label false, correct\n" in listed
    assert "false 1" not in listed
    assert listed.endswith("  ... and 2 more")


def test_data_sets_components_and_measures() -> None:
    graded = [
        row("correct", 1.0, source="a", components={"format": 1.0}, measures={"tests": 0.5}),
        row("incorrect", source="b", measures={"tests": 0.0}),
        row("error", source="b", measures={"tests": 9.0}),
    ]
    text = report(graded, examples=0)
    assert cells(text, "a ") == ["a", "1", "100.0", "%", "1.000"]
    assert cells(text, "b ") == ["b", "2", "0.0", "%", "0.000"]
    assert cells(text, "component format") == ["component", "format", "1", "1"]
    assert cells(text, "tests") == ["tests", "0.25", "2"]


def test_examples_are_on_one_line_and_harmless_in_a_terminal() -> None:
    text = report([row("incorrect", reason="because\nof \x1b[2J that", tail="a\nb\x07\u202ec")], examples=1)
    assert text.partition("examples:\n")[2] == "  p  incorrect: because of ?[2J that\n      ...a b??c\n"


def test_lines_for_json() -> None:
    assert row("correct", 1.0, label=True, seconds=0.1234567, measures={"m": 1.0}).line() == {
        "id": "p", "source": "s", "status": "correct", "reward": 1.0, "components": {}, "measures": {"m": 1.0}, "reason": "",
        "seconds": 0.123457, "label": True,
    }  # fmt: skip
    assert "label" not in row("error").line()
