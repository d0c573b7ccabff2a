from __future__ import annotations

import dataclasses

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status
from delta_lightning.verifiers.length import LengthPenalty
from support.verdicts import completion_of, prompt_with


@pytest.mark.parametrize(
    ("length", "reward", "status"),
    [
        (0, 0.0, Status.CORRECT),
        (4, 0.0, Status.CORRECT),
        (5, -0.25, Status.INCORRECT),
        (6, -0.5, Status.INCORRECT),
        (8, -0.9, Status.INCORRECT),
        (800, -0.9, Status.INCORRECT),
    ],
)
@pytest.mark.parametrize("unit", ["tokens", "characters"])
def test_price(unit: str, length: int, reward: float, status: Status) -> None:
    verifier = LengthPenalty(free=4, rate=0.25, most=0.9, unit=unit)  # type: ignore[arg-type]
    tokens, text = ([7] * length, "") if unit == "tokens" else ([], "\u00e9" * length)
    verdict = verifier.score(prompt_with(""), dataclasses.replace(completion_of(text), token_ids=tokens))
    assert verdict.reward == reward and verdict.status is status


def test_it_reads_no_reference() -> None:
    assert LengthPenalty().reference_fields() == frozenset()


@pytest.mark.parametrize(
    "fields", [{"free": -1}, {"rate": -0.1}, {"rate": float("nan")}, {"most": float("inf")}, {"most": -1.0}, {"unit": "words"}]
)
def test_fields_out_of_range(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"LengthPenalty.{next(iter(fields))}"):
        LengthPenalty(**fields)  # type: ignore[arg-type]
