"""The laws can fail: each test plants a part with one classic defect and asserts that the law's check raises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delta_lightning.credit import Delta
from delta_lightning.functional.delta import delta_coefficients
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.testing.laws import (
    check_credit,
)
from delta_lightning.types import Credit, Need


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

    def per_response(self) -> bool:
        return True


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


class Undeclared(Whole):
    """Reads hidden states and does not say so: a run would have computed none."""

    def needs(self) -> frozenset[Need]:
        return frozenset()


class UndeclaredHead(CreditAssigner):
    """Opens the LM head and does not say so."""

    def credit(self, view: StepView) -> Credit:
        with view.head() as head:
            return Credit(scale_BT=view.batch.loss_mask_BT * head.weight_VD.sum().clamp(min=1))


class UndeclaredShift(CreditAssigner):
    """Adds to the advantage and does not say so: a loss that clips by the sequence's sign would accept it."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        return Credit(scale_BT=mask_BT.double(), shift_BT=0.1 * mask_BT)


class PerResponse(Whole):
    """Needs one advantage per response and does not say so."""

    def per_response(self) -> bool:
        return False


class InPlace(CreditAssigner):
    """Writes into the batch that everybody reads."""

    def credit(self, view: StepView) -> Credit:
        view.batch.rewards_B.mul_(2)
        return Credit(scale_BT=view.batch.loss_mask_BT.double())


class StumblesAtFirst(CreditAssigner):
    """Takes the mean of the first micro-batch for an origin; that one may have no token."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        values_N = [scores.logprobs_BT[mask_BT[rows]].detach() for rows, scores in view.passes()]
        origin = values_N[0].mean() * 0 if values_N and bool(mask_BT.any()) else 0.0
        return Credit(scale_BT=mask_BT + origin * mask_BT.double())


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
        (Undeclared(), "needs"),
        (UndeclaredHead(), "needs"),
        (UndeclaredShift(), "additive"),
        (PerResponse(), "per_response"),
        (InPlace(), "changed"),
        (StumblesAtFirst(), "not finite"),
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


class UnevenDtypes(Planted):
    """A rank without tokens gathers float32, the others the dtype of their scores."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        parts = [scores.logprobs_BT.detach()[mask_BT[rows]] for rows, scores in view.passes()]
        view.gather(torch.cat(parts) if parts else torch.zeros(0))
        return Credit(scale_BT=mask_BT.double())


class UnevenKinds(Planted):
    """Ranks with tokens and ranks without are in different collectives, of tensors that look alike."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        tokens = torch.zeros(int(mask_BT.sum()))
        if len(tokens):
            view.gather(tokens)
            view.all_sum(torch.zeros(0, dtype=torch.int64))
        else:
            view.all_sum(torch.zeros(0, dtype=torch.int64))
            view.gather(tokens)
        return Credit(scale_BT=mask_BT.double())


@pytest.mark.parametrize("part", [UnevenCollectives(), UnevenDtypes(), UnevenKinds()], ids=lambda part: type(part).__name__)
def test_ranks_out_of_step_are_caught(part: CreditAssigner) -> None:
    with pytest.raises(AssertionError, match="ranks disagree"):
        check_credit(part)
