from __future__ import annotations

from dataclasses import dataclass

import pytest

from delta_lightning.types import Status
from delta_lightning.verifiers.mathematics.comparison import Comparison, TooHardError
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from support.verdicts import completion_of, prompt_with


@dataclass(frozen=True, kw_only=True)
class Obedient(Comparison):
    """Does what the answer says."""

    def same(self, gold: str, answer: str) -> bool | None:
        if answer == "hard":
            raise TooHardError("too hard for a test")
        if answer == "deep":
            raise RecursionError
        if answer == "broken":
            raise KeyError("broken")
        return {"yes": True, "no": False, "unusable": None}[answer]

    def usable(self, text: str) -> bool:
        return text != "unusable"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("yes", Status.CORRECT),
        ("no", Status.INCORRECT),
        ("hard", Status.TIMEOUT),
        ("deep", Status.TIMEOUT),
        ("broken", Status.ERROR),
        ("unusable", Status.ERROR),
    ],
)
def test_each_outcome_has_its_status(answer: str, status: Status) -> None:
    verdict = MathVerifier(comparison=Obedient()).score(prompt_with("42"), completion_of(f"\\boxed{{{answer}}}"))
    assert verdict.status is status
    assert verdict.reward == (1.0 if status is Status.CORRECT else 0.0)
    assert bool(verdict.reason) == (status is not Status.CORRECT)


def test_the_comparison_says_which_references_it_can_use() -> None:
    assert MathVerifier(comparison=Obedient()).refuse_reference({"answer": "42"}) is None
    assert "does not parse" in (MathVerifier(comparison=Obedient()).refuse_reference({"answer": "unusable"}) or "")


def test_the_seam_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Comparison()  # type: ignore[abstract]
    Obedient().warm_up()  # does nothing by default
