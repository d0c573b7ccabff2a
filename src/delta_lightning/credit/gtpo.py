"""Rewards per token by entropy, compared with the other answers at the same position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.credit.token_values import token_values
from delta_lightning.errors import require
from delta_lightning.functional.group_entropy import Cells, shaped_rewards, standardised_groups, standardised_sides
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit, Need


def _as_they_are(values_BT: Tensor, cells: Cells, *, eps: float) -> Tensor:
    return values_BT


_NORMALISERS: dict[str, Callable[..., Tensor]] = {
    "side": standardised_sides, "group": standardised_groups, "none": _as_they_are,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GTPO(CreditAssigner):
    """Token advantage = standardised shaped reward R, whatever A is (Tan et al., arXiv 2508.04349).

    Right answers: R = reward_weight r + entropy_weight d H / sum of H. Wrong ones: R = -reward_weight - entropy_weight h / H
    / sum of 1/H. Sums are over the d right (h wrong) answers to the prompt that are alive at the token's position, its place
    among the answer's trained tokens. r is the verifier's reward, H the entropy under theta_old in nats.

    With `side` the tokens of the right answers to a prompt, and those of the wrong ones, each get mean 0 and standard deviation
    1: reward_weight then cancels for rewards of 0 and 1, and no side is favoured on average. `group` pools both sides (ours),
    so that right answers stay above wrong ones. Scale is 0 and shift the advantage: estimators and shaping reach filters and
    metrics only. With the reduction `WeightedMean`, which divides by the scales, nothing trains.

    Args:
        reward_weight: alpha_1, at least 0. entropy_weight: alpha_2, at least 0; the paper's 1 and 0.1.
        normaliser: "side", "group", or "none", R as it is. Population standard deviation plus eps.
        eps: added to the standard deviation, above 0. Not published. Equal rewards give 0.
        one_sided: groups with only right or only wrong answers: "zero" (ours: they say nothing of right and wrong, as in
            GRPO), or "shaped", the formulas as they stand.
        entropy_floor: nats, above 0: lower entropies count as this, on both sides. Not published; below about 1e-3 the
            entropies of float32 logits are rounding, and 1/H would choose by it.
        correct_above: an answer is right if the verifier's reward is above this. Answers without a verdict get 0.

    Raises:
        ConfigError: a field out of range.
    """

    reward_weight: float = 1.0
    entropy_weight: float = 0.1
    normaliser: Literal["side", "group", "none"] = "side"
    eps: float = 1e-4
    one_sided: Literal["zero", "shaped"] = "zero"
    entropy_floor: float = 1e-3
    correct_above: float = 0.0

    def __post_init__(self) -> None:
        for name, usual in (("reward_weight", 1), ("entropy_weight", 0.1)):
            value = getattr(self, name)
            require(value >= 0, f"credit.GTPO.{name}", wanted="at least 0", got=value, remedy=f"The paper uses {usual}.")
        for name, usual in (("eps", 1e-4), ("entropy_floor", 1e-3)):
            value = getattr(self, name)
            require(value > 0, f"credit.GTPO.{name}", wanted="above 0", got=value, remedy=f"The default is {usual}.")
        for name, options in (("normaliser", tuple(_NORMALISERS)), ("one_sided", ("zero", "shaped"))):
            value = getattr(self, name)
            require(value in options, f"credit.GTPO.{name}", wanted=", ".join(options), got=value, remedy="Choose one.")

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """Scale 0 and the advantage as shift, [B, T], in the dtype of the scores."""
        batch = view.batch
        entropies_BT = token_values(view, lambda scores: scores.entropies_BT)
        rewards_B = batch.verdict_rewards_B
        cells = Cells.of(
            batch.loss_mask_BT & batch.valid_B[:, None], batch.group_ids_B, rewards_B > self.correct_above,
            all_sum=view.all_sum,
        )  # fmt: skip
        shaped_BT = shaped_rewards(
            entropies_BT, rewards_B, cells, reward_weight=self.reward_weight, entropy_weight=self.entropy_weight,
            floor=self.entropy_floor,
        )  # fmt: skip
        shift_BT = _NORMALISERS[self.normaliser](shaped_BT, cells, eps=self.eps)
        if self.one_sided == "zero":
            shift_BT = shift_BT * (cells.tokens() > 0).all(1)[cells.units_B, None]
        return Credit(scale_BT=torch.zeros_like(entropies_BT), shift_BT=shift_BT.to(entropies_BT.dtype))

    def needs(self) -> frozenset[Need]:
        """Entropies."""
        return frozenset({Need.ENTROPY})

    def additive(self) -> bool:
        """All of it is a shift."""
        return True
