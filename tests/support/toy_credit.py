"""Credit assigners for tests of wrappers: one with a shift, one that gives listed numbers, one that counts its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.testing.views import View
from delta_lightning.types import Credit, Need


@dataclass(frozen=True, kw_only=True)
class Shifting(CreditAssigner):
    """Scale 1/2 + entropy, shift log p + 0.3, on trained tokens."""

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        scale_BT, shift_BT = torch.zeros(mask_BT.shape), torch.zeros(mask_BT.shape)
        for rows, scores in view.passes():
            assert scores.entropies_BT is not None
            if scale_BT.dtype != scores.logprobs_BT.dtype:
                scale_BT, shift_BT = scale_BT.to(scores.logprobs_BT.dtype), shift_BT.to(scores.logprobs_BT.dtype)
            scale_BT[rows], shift_BT[rows] = 0.5 + scores.entropies_BT.detach(), scores.logprobs_BT.detach() + 0.3
        return Credit(scale_BT=scale_BT * mask_BT, shift_BT=shift_BT * mask_BT)

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.ENTROPY})

    def additive(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Listed(CreditAssigner):
    """The numbers of `scales`, sequence by sequence in the order of their ids, token by token; one rank."""

    scales: Sequence[float]
    dtype: torch.dtype = torch.float64

    def credit(self, view: StepView) -> Credit:
        mask_BT = view.batch.loss_mask_BT
        scale_BT = torch.zeros(mask_BT.shape, dtype=self.dtype)
        scale_BT[mask_BT] = torch.tensor(self.scales, dtype=self.dtype)
        return Credit(scale_BT=scale_BT)


@dataclass(frozen=True, kw_only=True)
class Answers(CreditAssigner):
    """Gives every answer that a wrapper may pass on, the opposite of the defaults, and counts its calls."""

    value: bool = True
    calls: list[int] = field(default_factory=list)

    def credit(self, view: StepView) -> Credit:
        self.calls.append(view.step)
        ones_BT = view.batch.loss_mask_BT.float()
        return Credit(scale_BT=ones_BT, shift_BT=ones_BT if self.value else None)

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.HIDDEN, Need.HEAD}) if self.value else frozenset()

    def cut_dependent(self) -> bool:
        return self.value

    def token_level(self) -> bool:
        return self.value

    def per_response(self) -> bool:
        return self.value

    def additive(self) -> bool:
        return self.value


@dataclass(frozen=True, kw_only=True)
class AtStep(CreditAssigner):
    """Another assigner at a rollout step of its own."""

    assigner: CreditAssigner
    step: int

    def credit(self, view: StepView) -> Credit:
        assert isinstance(view, View)
        return self.assigner.credit(replace(view, step=self.step))

    def needs(self) -> frozenset[Need]:
        return self.assigner.needs()

    def additive(self) -> bool:
        return self.assigner.additive()

    def per_response(self) -> bool:
        return self.assigner.per_response()


def answers(part: CreditAssigner) -> dict[str, object]:
    """All that a part says of itself."""
    return {
        "needs": part.needs(), "cut_dependent": part.cut_dependent(), "token_level": part.token_level(),
        "per_response": part.per_response(), "additive": part.additive(),
    }  # fmt: skip


def of_tokens(value_BT: Tensor, view: StepView) -> list[float]:
    """The trained tokens' values, rows in order."""
    values: list[float] = value_BT[view.batch.loss_mask_BT].double().tolist()
    return values
