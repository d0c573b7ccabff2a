from __future__ import annotations

from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Prompt, Status
from delta_lightning.verifiers.choice import MultipleChoice
from delta_lightning.verifiers.extraction.excerpts import AfterThinking
from support.verdicts import completion_of

COLOURS = ["red", "dark  green", "blue", "white"]
WITH_OPTIONS = MultipleChoice(options="options")


def status(verifier: MultipleChoice, reference: dict[str, Any], text: str) -> Status:
    prompt = Prompt(id="p", text="?", token_ids=(1,), source="test", reference=reference)
    verdict = verifier.score(prompt, completion_of(text))
    assert verdict.reward == float(verdict.status is Status.CORRECT)
    return verdict.status


@pytest.mark.parametrize(
    ("verifier", "reference", "right"),
    [
        (MultipleChoice(), {"answer": "C"}, "C"),
        (MultipleChoice(), {"answer": " (c)"}, "C"),
        (MultipleChoice(), {"answer": "J"}, "J"),
        (MultipleChoice(), {"answer": 2}, "C"),
        (MultipleChoice(), {"answer": "2"}, "C"),
        (MultipleChoice(first_index=1), {"answer": 2}, "B"),
        (MultipleChoice(field="answer_index"), {"answer_index": 0}, "A"),
        (WITH_OPTIONS, {"answer": "dark green", "options": COLOURS}, "B"),
        (WITH_OPTIONS, {"answer": "B", "options": COLOURS}, "B"),
        (WITH_OPTIONS, {"answer": 3, "options": COLOURS}, "D"),
        (WITH_OPTIONS, {"answer": 1, "options": ["1", "2", "3"]}, "B"),  # an integer is an index, never a text
    ],
)
def test_references(verifier: MultipleChoice, reference: dict[str, Any], right: str) -> None:
    assert verifier.refuse_reference(reference) is None
    for letter in "ABCDEFGHIJ":
        wanted = Status.CORRECT if letter == right else Status.INCORRECT
        assert status(verifier, reference, f"The answer is ({letter}).") is wanted
    assert status(verifier, reference, "I do not know") is Status.NO_ANSWER
    assert status(verifier, reference, "The answer is A or B") is Status.NO_ANSWER


@pytest.mark.parametrize(
    ("verifier", "reference", "why"),
    [
        (MultipleChoice(), {}, "NoneType"),
        (MultipleChoice(), {"answer": "K"}, "none of A to J"),
        (MultipleChoice(), {"answer": ""}, "none"),
        (MultipleChoice(), {"answer": 10}, "none"),
        (MultipleChoice(), {"answer": -1}, "none"),
        (MultipleChoice(), {"answer": True}, "bool"),
        (MultipleChoice(), {"answer": 1.0}, "float"),
        (WITH_OPTIONS, {"answer": "A"}, "'options' must be a list"),
        (WITH_OPTIONS, {"answer": "A", "options": "ABCD"}, "list"),
        (WITH_OPTIONS, {"answer": "A", "options": ["x"]}, "2 to 10"),
        (WITH_OPTIONS, {"answer": "A", "options": ["x", "x "]}, "2 to 10 different"),
        (WITH_OPTIONS, {"answer": "A", "options": list("abcdefghijk")}, "2 to 10"),
        (WITH_OPTIONS, {"answer": "E", "options": COLOURS}, "none of 4 options"),
        (WITH_OPTIONS, {"answer": "B", "options": ["B", "x", "y"]}, "several (A, B)"),
        (WITH_OPTIONS, {"answer": "2", "options": ["1", "2", "3"]}, "several (B, C)"),
    ],
)
def test_references_that_cannot_be_used(verifier: MultipleChoice, reference: dict[str, Any], why: str) -> None:
    assert why in (verifier.refuse_reference(reference) or "")
    assert status(verifier, reference, "The answer is A.") is Status.ERROR


def test_only_the_extracted_part_is_read() -> None:
    verifier = MultipleChoice(extraction=AfterThinking())
    assert status(verifier, {"answer": "C"}, "<think>The answer is A.</think> C") is Status.CORRECT
    assert status(verifier, {"answer": "C"}, "The answer is C.") is Status.NO_ANSWER


def test_fields() -> None:
    assert MultipleChoice().reference_fields() == {"answer"} and WITH_OPTIONS.reference_fields() == {"answer", "options"}
    with pytest.raises(ConfigError, match="options"):
        MultipleChoice(options="answer")
    with pytest.raises(ConfigError, match="field"):
        MultipleChoice(field="")
