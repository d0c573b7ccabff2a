from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status, Verdict
from delta_lightning.verifiers.combine.first_that_applies import FirstThatApplies
from delta_lightning.verifiers.exact import ExactMatch
from delta_lightning.verifiers.extraction.excerpts import AfterMarker
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from support.members import ASKED, Says
from support.verdicts import completion_of, prompt_with


def scored(*statuses: str) -> Verdict:
    ASKED.clear()
    members = {status + str(place): Says(name=str(place), status=status) for place, status in enumerate(statuses)}
    return FirstThatApplies(members=members).score(prompt_with(1), completion_of("text"))


@pytest.mark.parametrize("status", ["correct", "incorrect", "error", "unavailable", "timeout"])
def test_the_first_that_is_not_without_an_answer(status: str) -> None:
    verdict = scored("no_answer", status, "correct")
    assert verdict.status is Status(status) and ASKED == ["0", "1"] and verdict.reason == f"{status}1: says 1"


def test_none_applies() -> None:
    verdict = scored("no_answer", "no_answer")
    assert verdict.status is Status.NO_ANSWER and verdict.reason == "no_answer0: says 0; no_answer1: says 1"


def test_a_box_or_else_a_marked_line() -> None:
    either = FirstThatApplies(members={"box": MathVerifier(), "line": ExactMatch(extraction=AfterMarker())})
    texts = {r"\boxed{42}": "correct", "Answer: 42": "correct", "Answer: 42 \\boxed{41}": "incorrect", "42": "no_answer"}
    for text, status in texts.items():
        assert either.score(prompt_with("42"), completion_of(text)).status is Status(status), text


def test_no_member() -> None:
    with pytest.raises(ConfigError, match=r"FirstThatApplies\.members"):
        FirstThatApplies(members={})
