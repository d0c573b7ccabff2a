from __future__ import annotations

import pytest

from delta_lightning.types import Status, Verdict
from delta_lightning.verifiers.combine.gate import Gate
from support.members import ASKED, Says
from support.verdicts import completion_of, prompt_with


def scored(gate: Gate) -> Verdict:
    ASKED.clear()
    return gate.score(prompt_with(1), completion_of("text"))


@pytest.mark.parametrize("status", ["correct", "incorrect", "no_answer"])
def test_an_open_gate_adds_nothing(status: str) -> None:
    then = Says(name="t", status=status, reward=0.5, weights=(2.0,), measures=(("share", 0.5),))
    verdict = scored(Gate(first=Says(name="f"), then=then))
    assert verdict.status is Status(status) and verdict.reward == 0.5 and verdict.token_weights == (2.0,)
    assert verdict.components == {"first": 1.0, "then": 0.5} and verdict.measures == {"then/share": 0.5} and ASKED == ["f", "t"]


@pytest.mark.parametrize("status", ["incorrect", "no_answer"])
def test_behind_a_closed_gate_nobody_is_asked(status: str) -> None:
    verdict = scored(Gate(first=Says(name="f", status=status, reward=-0.25, weights=(2.0,)), then=Says(name="t")))
    assert verdict.status is Status(status) and verdict.reward == -0.25 and verdict.token_weights is None
    assert verdict.components == {"first": -0.25, "then": 0.0} and verdict.reason == "first: says f" and ASKED == ["f"]


def test_a_failure_behind_an_open_gate_is_the_failure_of_the_whole() -> None:
    verdict = scored(Gate(first=Says(), then=Says(name="t", status="error")))
    assert verdict.status is Status.ERROR and verdict.reward == 0.0 and verdict.reason == "then: says t"
