"""The laws can fail: each test plants a part with one classic defect and asserts that the law's check raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta, Uniform
from delta_lightning.filters import ZeroVariance
from delta_lightning.functional.delta import delta_coefficients
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.testing.laws import (
    check_advantage,
    check_correction,
    check_credit,
    check_filter,
    check_loss,
    check_part,
    check_reduction,
    check_weighting,
)
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import mixed
from delta_lightning.types import Correction, Credit, Experience, Need, RolloutBatch, Statistics, StepTotals, TokenScores


def wide(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    return torch.zeros(mask_BT.shape, dtype=values_N.dtype).masked_scatter(mask_BT, values_N)


def proxies(view: StepView, *, shift: int = 0) -> tuple[Tensor, Tensor]:
    """Features and advantages of all tokens of this rank; `shift` moves the hidden states by tokens."""
    mask_BT = view.batch.loss_mask_BT
    parts = []
    for rows, scores in view.passes():
        assert scores.hidden_ND is not None
        weights_N = 1 - scores.logprobs_BT[mask_BT[rows]].exp()
        parts.append(weights_N[:, None] * scores.hidden_ND.roll(shift, 0))
    assert view.advantages is not None
    features_ND = torch.cat(parts) if parts else torch.zeros(0, 5, dtype=torch.float64)
    return features_ND, view.advantages[:, None].expand(mask_BT.shape)[mask_BT]


class Planted(CreditAssigner):
    """A credit assigner with a defect."""

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.HIDDEN})


class Whole(Planted):
    """The control: DelTA in one go, without defect."""

    def credit(self, view: StepView) -> Credit:
        features_ND, advantages_N = proxies(view)
        return Credit(
            scale_BT=wide(delta_coefficients(features_ND, advantages_N, all_sum=view.all_sum), view.batch.loss_mask_BT)
        )


class LocalStatistics(Planted):
    """Centroids and N / Z of this rank alone, as in the official code."""

    def credit(self, view: StepView) -> Credit:
        return Credit(scale_BT=wide(delta_coefficients(*proxies(view)), view.batch.loss_mask_BT))


class LocalDenominator(Planted):
    """Everything over all ranks but the last normaliser, taken per micro-batch."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        scale_BT = Delta().credit(view).scale_BT.clone()
        for rows, _ in view.passes():
            tokens = mask_BT[rows].sum().clamp(min=1)
            scale_BT[rows] = scale_BT[rows] * tokens / scale_BT[rows].sum().clamp(min=1e-8)
        return Credit(scale_BT=scale_BT)


class MaskInNumeratorOnly(Planted):
    """N counts padded positions too."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        scale_BT = Delta().credit(view).scale_BT
        tokens, positions = view.all_sum(mask_BT.sum()), view.all_sum(torch.tensor(mask_BT.numel()))
        return Credit(scale_BT=scale_BT * tokens / positions.clamp(min=1))


class OffByOneHidden(Planted):
    """Each token takes the hidden state of the token before it."""

    def credit(self, view: StepView) -> Credit:
        features_ND, advantages_N = proxies(view, shift=1)
        return Credit(
            scale_BT=wide(delta_coefficients(features_ND, advantages_N, all_sum=view.all_sum), view.batch.loss_mask_BT)
        )


class GradientThroughCredit(Planted):
    """Coefficients that are part of the graph."""

    def credit(self, view: StepView) -> Credit:
        scale_BT = Whole().credit(view).scale_BT
        touch = sum((scores.logprobs_BT.sum() for _, scores in view.passes()), torch.zeros((), dtype=scale_BT.dtype))
        return Credit(scale_BT=scale_BT + 0 * touch * view.batch.loss_mask_BT)


class Padded(Planted):
    """Credit on padding too."""

    def credit(self, view: StepView) -> Credit:
        return Credit(scale_BT=torch.ones(view.batch.loss_mask_BT.shape))


class Unguarded(Planted):
    """Divides by the mass of the positive side, which may be 0."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        _, advantages_N = proxies(view)
        mass = view.all_sum(advantages_N.double().clamp(min=0).sum())
        return Credit(scale_BT=wide(advantages_N.double() / mass, mask_BT))


class ByPosition(Planted):
    """Depends on the row's place in the batch."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        return Credit(scale_BT=torch.arange(len(mask_BT))[:, None] * mask_BT.double())


class FalseUniform(Planted):
    """Says that it is not token-level, and is."""

    def credit(self, view: StepView) -> Credit:
        return Delta().credit(view)

    def token_level(self) -> bool:
        return False


def test_the_control_passes() -> None:
    check_credit(Whole())


@pytest.mark.parametrize(
    ("part", "law"),
    [
        (LocalStatistics(), "2 ranks"),
        (LocalDenominator(), "cut by"),
        (MaskInNumeratorOnly(), "more padding"),
        (OffByOneHidden(), "permuted rows"),
        (GradientThroughCredit(), "carries a gradient"),
        (Padded(), "not 0 outside the mask"),
        (Unguarded(), "not finite"),
        (ByPosition(), "permuted rows"),
        (FalseUniform(), "token_level"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CreditAssigner) else "",
)
def test_defective_credit_is_caught(part: CreditAssigner, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_credit(part)


class UnevenCollectives(Planted):
    """Skips a collective where this rank has no tokens: real ranks would wait for ever."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        if bool(mask_BT.any()):
            view.all_sum(mask_BT.sum())
        return Credit(scale_BT=mask_BT.double())


def test_ranks_out_of_step_are_caught() -> None:
    with pytest.raises(AssertionError, match="ranks disagree"):
        check_credit(UnevenCollectives())


# ---------------------------------------------------------------------------------------------------- other seams


class LocalMean(TokenMean):
    """Divides by the tokens of the micro-batch."""

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        mask_BT = experience.batch.loss_mask_BT
        return mask_BT / mask_BT.sum().clamp(min=1)


class PaddedMean(TokenMean):
    """Masked in the numerator, counted in the denominator."""

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        return experience.batch.loss_mask_BT / max(1, experience.batch.loss_mask_BT.numel())


class UnguardedMean(TokenMean):
    """0 / 0 where the step trains no token."""

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        return experience.batch.loss_mask_BT / torch.tensor(totals.tokens)


@pytest.mark.parametrize(
    ("part", "law"), [(LocalMean(), "weights of rows"), (PaddedMean(), "weights of rows"), (UnguardedMean(), "not finite")]
)
def test_defective_reduction_is_caught(part: TokenMean, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_reduction(part)


class WrongSign(ClippedSurrogate):
    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        return -super().per_token(experience, scores, statistics)


class CreditForgotten(ClippedSurrogate):
    """Reads raw advantages."""

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        plain = replace(experience, credit=Credit(scale_BT=torch.ones_like(experience.credit.scale_BT)))
        return super().per_token(plain, scores, statistics)


class Coupled(ClippedSurrogate):
    """Centres the ratio over the micro-batch."""

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        loss_BT = super().per_token(experience, scores, statistics)
        return loss_BT + 0.1 * (scores.logprobs_BT - experience.old_logprobs_BT).detach().mean() * experience.batch.loss_mask_BT


class Unclamped(ClippedSurrogate):
    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        ratio_BT = torch.exp(2 * (scores.logprobs_BT - experience.old_logprobs_BT)).sqrt()
        return -ratio_BT * experience.token_advantages_BT


class UnmaskedMetric(ClippedSurrogate):
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        return {"ratio": torch.ones_like(experience.old_logprobs_BT)}


@pytest.mark.parametrize(
    ("part", "law"),
    [
        (WrongSign(), "gradient at ratio 1"),
        (CreditForgotten(), "gradient at ratio 1"),
        (Coupled(), "alone"),
        (Unclamped(), "not finite"),
        (UnmaskedMetric(), "metric ratio: not 0"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ClippedSurrogate) else "",
)
def test_defective_loss_is_caught(part: ClippedSurrogate, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_loss(part)


class BatchStandardised(GroupStandardised):
    """Whitens over the rows of this rank, without a collective."""

    def advantages(self, view: StepView) -> Tensor:
        rewards_B = view.batch.rewards_B
        return torch.where(view.batch.valid_B, rewards_B - rewards_B.mean(), 0) if len(rewards_B) else rewards_B


class CountsErrors(GroupStandardised):
    """Takes rows without a verdict for wrong answers."""

    def advantages(self, view: StepView) -> Tensor:
        world = replace(view.batch, valid_B=torch.ones_like(view.batch.valid_B))
        return super().advantages(View(replace(mixed(), batch=world)))


class Enlarges(NoCorrection):
    def correct(self, view: StepView) -> Correction:
        mask_BT = view.batch.attention_mask_BT
        return Correction(weights_BT=mask_BT.float(), mask_BT=mask_BT)


class Toggles(ZeroVariance):
    """Masks what is trained and trains what is masked."""

    def apply(self, batch: RolloutBatch) -> RolloutBatch:
        return replace(batch, loss_mask_BT=~batch.loss_mask_BT & batch.attention_mask_BT)


class Gradual(Constant):
    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        return scores.logprobs_BT.exp()


def test_other_defects_are_caught() -> None:
    with pytest.raises(AssertionError, match="ranks"):
        check_advantage(BatchStandardised())
    with pytest.raises(AssertionError, match="without a verdict"):
        check_advantage(CountsErrors())
    with pytest.raises(AssertionError, match="enlarged"):
        check_correction(Enlarges())
    with pytest.raises(AssertionError, match="enlarged"):
        check_filter(Toggles())
    with pytest.raises(AssertionError, match="carries a gradient"):
        check_weighting(Gradual())


# ------------------------------------------------------------------------------------------- what a part must be


@dataclass(frozen=True, kw_only=True)
class Undocumented(Uniform):
    """Says nothing of its field."""

    strength: float = 1.0


@dataclass(kw_only=True)
class Mutable(CreditAssigner):
    """It has no fields."""

    def credit(self, view: StepView) -> Credit:
        return Uniform().credit(view)


@pytest.mark.parametrize(("cls", "law"), [(Undocumented, "strength"), (Mutable, "not frozen")])
def test_malformed_parts_are_caught(cls: type, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_part(cls)
