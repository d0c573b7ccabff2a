"""The grid can fail: five classic defects, planted in a whole step, are caught by the grid or by the law that names them.

`test_mutations` plants the same five, and more, in single parts and holds them to the laws of their seams.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from delta_lightning.credit import Delta
from delta_lightning.functional import logprobs
from delta_lightning.interfaces import TokenWeighting
from delta_lightning.losses import TokenMean
from delta_lightning.models import scorer as scorer_module
from delta_lightning.testing.laws import check
from delta_lightning.types import Experience, Statistics, StepTotals, TokenScores
from support.covering import Row
from support.grid import choices
from trainer.test_view import test_hidden_states_are_those_that_predict_the_trained_tokens as hidden_states_test

from .test_grid import compare

BASE: Row = {
    "estimator": "GroupStandardised", "credit": "Delta", "weighting": "Constant", "loss": "ClippedSurrogate",
    "reduction": "TokenMean", "correction": "NoCorrection", "penalty": "none", "shape": "whole", "ranks": "1",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LocalDenominator(TokenMean):
    """Divides by the tokens of the micro-batch."""

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        mask_BT = experience.batch.loss_mask_BT
        return mask_BT.to(torch.float64) / mask_BT.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class MaskInNumeratorOnly(TokenMean):
    """Counts padding in the denominator."""

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        mask_BT = experience.batch.loss_mask_BT
        return mask_BT.to(torch.float64) / mask_BT.numel() if mask_BT.numel() else mask_BT.to(torch.float64)


@dataclass(frozen=True, kw_only=True)
class GradientThroughCoefficients(TokenWeighting):
    """Weights that are part of the graph."""

    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        return 1 + scores.logprobs_BT.exp()


def test_the_base_passes() -> None:
    compare([BASE | {"shape": "two micro-batches"}, BASE | {"ranks": "2"}], torch.float64)


@pytest.mark.parametrize(
    ("factor", "part", "change"),
    [
        ("reduction", LocalDenominator(), {"shape": "two micro-batches"}),
        ("reduction", MaskInNumeratorOnly(), {"shape": "many, some empty"}),
        ("credit", Delta(scope="rank"), {"ranks": "2"}),
    ],
    ids=["local denominator", "mask in the numerator only", "rank-local sum"],
)
def test_defects_of_the_cut(factor: str, part: object, change: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    if change.get("ranks") != "2":  # rank processes make their own list of parts
        monkeypatch.setitem(choices()[factor], "Planted", part)
        row = BASE | {factor: "Planted"} | change
    else:
        row = BASE | {factor: "Delta(scope=rank)"} | change
    with pytest.raises(AssertionError, match=r"update \d: "):
        compare([row], torch.float64)


def test_off_by_one_hidden_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cut shows it, so the scorer has a test of its own, which fails."""
    hidden_states_test()

    def own_states(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return hidden_BTD[mask_BT]  # of the token itself: it has read what it predicts

    honest, honest_states = logprobs.chunked_head, logprobs.predicting_states

    def head_of_the_right_state(hidden_ND: Tensor, *arguments: object, **options: object) -> logprobs.HeadOutput:
        return honest(seen[-1], *arguments, **options)  # type: ignore[arg-type]

    seen: list[Tensor] = []

    def both(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        seen.append(honest_states(hidden_BTD, mask_BT))
        return own_states(hidden_BTD, mask_BT)

    monkeypatch.setattr(logprobs, "predicting_states", both)  # layouts look it up there at each call
    monkeypatch.setattr(scorer_module, "chunked_head", head_of_the_right_state)
    with pytest.raises(AssertionError):
        hidden_states_test()
    assert seen


def test_gradient_through_the_coefficients() -> None:
    with pytest.raises(AssertionError, match="carries a gradient"):
        check(GradientThroughCoefficients())
