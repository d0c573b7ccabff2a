from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status
from delta_lightning.verifiers.exact import ExactMatch
from delta_lightning.verifiers.extraction.excerpts import AfterMarker, WholeText
from support.verdicts import completion_of, prompt_with

KEEP = ExactMatch(extraction=WholeText(), case="keep", whitespace="keep")


def status(verifier: ExactMatch, answer: object, text: str) -> Status:
    verdict = verifier.score(prompt_with(answer), completion_of(text))
    assert verdict.reward == float(verdict.status is Status.CORRECT)
    return verdict.status


@pytest.mark.parametrize(
    ("verifier", "answer", "text", "wanted"),
    [
        (ExactMatch(), "Paris", "I think\n  PARIS ", "correct"),
        (ExactMatch(), "Paris", "Paris\nLyon", "incorrect"),
        (ExactMatch(), "New York", "new \t york", "correct"),
        (ExactMatch(), ["75", 76], "76", "correct"),
        (ExactMatch(), ["75", 76], "77", "incorrect"),
        (ExactMatch(), 75, "75", "correct"),
        (ExactMatch(), "Paris", "Paris.", "incorrect"),
        (ExactMatch(strip=".!"), "Paris", "Paris!.", "correct"),
        (ExactMatch(case="keep"), "Paris", "paris", "incorrect"),
        (ExactMatch(whitespace="remove"), "a b", "ab", "correct"),
        (ExactMatch(whitespace="trim"), "a b", "a  b", "incorrect"),
        (ExactMatch(whitespace="trim"), " a b", "a b ", "correct"),
        (KEEP, "a", "a", "correct"),
        (KEEP, "a", "A", "incorrect"),
        (ExactMatch(), "caf\u00e9", "cafe\u0301", "correct"),
        (ExactMatch(), "stra\u00dfe", "STRASSE", "correct"),
        (ExactMatch(extraction=AfterMarker()), "4", "Answer: 4\nI am sure.", "correct"),
        (ExactMatch(extraction=AfterMarker()), "4", "4", "no_answer"),
        (ExactMatch(), "4", " \n ", "no_answer"),
        (ExactMatch(strip="."), "4", "...", "no_answer"),
    ],
)
def test_statuses(verifier: ExactMatch, answer: object, text: str, wanted: str) -> None:
    assert status(verifier, answer, text) is Status(wanted)


@pytest.mark.parametrize("answer", [None, 1.5, True, [], ["a", None], [True], {}, " ", ["a", ""]])
def test_references_that_cannot_be_used(answer: object) -> None:
    assert ExactMatch().refuse_reference({"answer": answer}) is not None
    assert status(ExactMatch(), answer, "a") is Status.ERROR


def test_a_reference_may_stand_in_another_field() -> None:
    verifier = ExactMatch(field="city")
    assert verifier.reference_fields() == {"city"}
    assert verifier.refuse_reference({"answer": "Paris"}) is not None and verifier.refuse_reference({"city": "Paris"}) is None


@pytest.mark.parametrize(("field", "value"), [("case", "lower"), ("whitespace", "none"), ("field", "")])
def test_fields_out_of_range(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"ExactMatch.{field}"):
        ExactMatch(**{field: value})
