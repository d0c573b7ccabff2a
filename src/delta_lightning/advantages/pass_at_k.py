"""Pass@k: only the best answer of a group, by its margin over the second best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.advantages import STD, GroupStatistics, best_margin, group_statistics
from delta_lightning.interfaces import AdvantageEstimator, StepView


def _ones(group: GroupStatistics) -> Tensor:
    return torch.ones_like(group.mean_P)


SCALES: Mapping[str, Callable[[GroupStatistics], Tensor]] = {"none": _ones, **STD}


@dataclass(frozen=True, kw_only=True)
class PassAtK(AdvantageEstimator):
    """A = best - second best for the best completion of a prompt, 0 for all others (Tang et al., arXiv 2503.19595), [B].

    The largest reward of the group with an answer minus the largest without it: what the answer adds to the best of k = G.
    The signal is sparse. With rewards of 0 and 1 a group says something only if exactly one answer is right.

    Ties: rewards within 1e-6 of the best are as good as the best. Two of them leave no margin, and the whole group gets 0,
    as the formula says. Groups with fewer than two verdicts and rows without one get 0 too.

    Args:
        std: "none" as in the paper; "unbiased" (n - 1) or "population" (n) divides by the standard deviation of the group's
            rewards plus `eps`, as verl does by default (unbiased, 1e-6).
        eps: added to the standard deviation, in units of the reward; at least 0. Unused with "none".

    Raises:
        ConfigError: a field out of range.
    """

    std: Literal["none", "unbiased", "population"] = "none"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        require(self.std in SCALES, "advantage.std", wanted=" or ".join(SCALES), got=self.std, remedy="The paper's is none.")
        require(self.eps >= 0, "advantage.eps", wanted="at least 0", got=self.eps, remedy="The usual value is 1e-6.")

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards."""
        batch = view.batch
        margin_B = best_margin(batch.rewards_B, batch.group_ids_B, batch.valid_B)
        if self.std == "none":
            return margin_B
        group = group_statistics(batch.rewards_B, batch.group_ids_B, batch.valid_B)
        # A group with a margin is not tied, so its standard deviation is above 0.
        scale_P = torch.where(group.tied_P, 0.0, 1 / (SCALES[self.std](group) + self.eps))
        return (margin_B.double() * scale_P[group.index_B]).to(margin_B.dtype)

    def min_completions(self) -> int:
        """One completion has no second best."""
        return 2
