"""The laws can fail, for every seam but credit: each test plants a part with one classic defect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Uniform
from delta_lightning.filters import ZeroVariance
from delta_lightning.interfaces import CreditAssigner, Penalty, StepView
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.testing.laws import (
    check_advantage,
    check_correction,
    check_filter,
    check_loss,
    check_part,
    check_penalty,
    check_reduction,
    check_weighting,
)
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import mixed
from delta_lightning.types import Correction, Credit, Experience, Need, RolloutBatch, Statistics, StepTotals, TokenScores


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


class RevivesTruncated(ZeroVariance):
    """Takes the prompts of cut answers into the mask."""

    def apply(self, batch: RolloutBatch) -> RolloutBatch:
        return replace(batch, loss_mask_BT=batch.loss_mask_BT | (batch.truncated_B[:, None] & batch.attention_mask_BT))


class LocalQuantile(Constant):
    """Keeps the tokens above the median of this rank's: a statistic without a collective."""

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.MINI_BATCH})

    def statistics(self, experience: Experience, view: StepView) -> Statistics:
        mask_BT = view.batch.loss_mask_BT
        values_N = [scores.logprobs_BT.detach()[mask_BT[rows]] for rows, scores in view.passes()]
        some_N = torch.cat([*values_N, torch.zeros(1, dtype=experience.old_logprobs_BT.dtype)])
        return Statistics(values={"median": some_N.median()})

    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        assert statistics is not None
        return (scores.logprobs_BT >= statistics.values["median"]).double().detach()


class LocalCentre(ClippedSurrogate):
    """Subtracts a mean of this rank's log-probabilities, constant for the gradient."""

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.MINI_BATCH})

    def statistics(self, experience: Experience, view: StepView) -> Statistics:
        return Statistics(values={"mean": experience.old_logprobs_BT.sum() / experience.batch.loss_mask_BT.sum().clamp(min=1)})

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        assert statistics is not None
        return super().per_token(experience, scores, None) - statistics.values["mean"] * experience.batch.loss_mask_BT


class Explodes(Penalty):
    """exp of twice the log-ratio, not clamped."""

    def per_token(self, experience: Experience, scores: TokenScores) -> Tensor:
        return (2 * (scores.logprobs_BT - experience.old_logprobs_BT)).exp() * experience.batch.loss_mask_BT


class UndeclaredEntropy(Penalty):
    """An entropy bonus that does not ask for entropies."""

    def per_token(self, experience: Experience, scores: TokenScores) -> Tensor:
        assert scores.entropies_BT is not None, "no entropies"
        return -0.01 * scores.entropies_BT


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
    with pytest.raises(AssertionError, match="enlarged"):
        check_filter(RevivesTruncated())
    with pytest.raises(AssertionError, match="carries a gradient"):
        check_weighting(Gradual())
    with pytest.raises(AssertionError, match="2 ranks"):
        check_weighting(LocalQuantile())
    with pytest.raises(AssertionError, match="2 ranks"):
        check_loss(LocalCentre())
    with pytest.raises(AssertionError, match="not finite"):
        check_penalty(Explodes())
    with pytest.raises(AssertionError, match=r"needs.*no entropies"):
        check_penalty(UndeclaredEntropy())


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
