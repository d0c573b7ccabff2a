from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Status, Verdict
from delta_lightning.verifiers.combine.weighted_sum import WeightedSum
from delta_lightning.verifiers.length import LengthPenalty
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from support.members import Says
from support.verdicts import completion_of, prompt_with

BOTH: dict[str, Verifier] = {
    "answer": Says(name="a", reward=1.0, weights=(0.5, 2.0), measures=(("share", 0.25),)),
    "format": Says(name="f", status="incorrect", reward=0.5, weights=(1.0, 1.0)),
}


def scored(whole: WeightedSum) -> Verdict:
    return whole.score(prompt_with(1), completion_of("text"))


def test_rewards_are_weighted_and_components_are_not() -> None:
    verdict = scored(WeightedSum(members=BOTH, weights={"format": 0.1}))
    assert verdict.reward == 1.05 and verdict.components == {"answer": 1.0, "format": 0.5}
    assert verdict.measures == {"answer/share": 0.25}
    assert verdict.reason == "answer: says a; format: says f"


def test_one_member_decides() -> None:
    first = scored(WeightedSum(members=BOTH))
    assert first.status is Status.CORRECT and first.token_weights == (0.5, 2.0)
    other = scored(WeightedSum(members=BOTH, decides="format"))
    assert other.status is Status.INCORRECT and other.token_weights == (1.0, 1.0) and other.reward == first.reward


def test_a_failure_behind_is_the_failure_of_the_whole() -> None:
    members = {**BOTH, "judge": Says(name="j", status="unavailable")}
    verdict = scored(WeightedSum(members=members))
    assert verdict.status is Status.UNAVAILABLE and verdict.reward == 0.0 and verdict.reason == "judge: says j"


def test_no_answer_of_a_member_that_does_not_decide_counts_its_reward() -> None:
    members = {"answer": Says(), "style": Says(status="no_answer", reward=0.0)}
    assert scored(WeightedSum(members=members)).status is Status.CORRECT


def test_mathematics_with_a_price_on_length() -> None:
    whole = WeightedSum(
        members={"answer": MathVerifier(), "length": LengthPenalty(free=10, rate=0.01, unit="characters")},
        weights={"length": 0.5},
    )
    verdict = whole.score(prompt_with("42"), completion_of(r"It is \boxed{42}"))
    assert verdict.status is Status.CORRECT and verdict.reward == pytest.approx(1 - 0.5 * 0.06)


@pytest.mark.parametrize(
    ("fields", "setting"),
    [
        ({"members": {}}, "members"),
        ({"members": BOTH, "weights": {"style": 1.0}}, "weights: wanted names among answer, format"),
        ({"members": BOTH, "weights": {"format": float("nan")}}, "weights: wanted finite"),
        ({"members": BOTH, "decides": "style"}, "decides: wanted one of answer, format"),
    ],
)
def test_refusals(fields: dict[str, object], setting: str) -> None:
    with pytest.raises(ConfigError, match=f"WeightedSum.{setting}"):
        WeightedSum(**fields)  # type: ignore[arg-type]
