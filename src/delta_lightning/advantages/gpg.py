"""GPG: deviations from the group's mean, scaled up by the share of answers that carry no signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.advantages import GroupStatistics, group_statistics, snapped_deviations
from delta_lightning.interfaces import AdvantageEstimator, StepView
from delta_lightning.types import RolloutBatch

Signal = Literal["informative", "nonzero"]


def _informative(batch: RolloutBatch, group: GroupStatistics) -> Tensor:
    """Answers of groups whose rewards differ."""
    return batch.valid_B & ~group.tied_P[group.index_B]


def _nonzero(batch: RolloutBatch, group: GroupStatistics) -> Tensor:
    """Answers whose reward is not 0."""
    return batch.valid_B & (batch.rewards_B != 0)


SIGNALS: Mapping[str, Callable[[RolloutBatch, GroupStatistics], Tensor]] = {
    "informative": _informative,
    "nonzero": _nonzero,
}


@dataclass(frozen=True, kw_only=True)
class GPG(AdvantageEstimator):
    """A = alpha (R - mean) over the completions of a prompt, alpha = answers / answers with signal (arXiv 2504.02546), [B].

    GPG (Chu et al.) scales the gradient up where groups are all right or all wrong, so that a step with few informative groups
    is as large as one with many. Both counts are of answers with a verdict, over all ranks of the rollout step. The paper's
    factor F_norm is 1 here.

    Groups of equal rewards (within 1e-6 of their mean), groups with fewer than two verdicts and rows without one get exactly
    0. Where no answer counts as signal, alpha divides by 1.

    Args:
        signal: "informative" counts answers of groups whose rewards differ, which is what the paper's correction is for;
            "nonzero" counts answers with a reward other than 0, as verl does.

    Raises:
        ConfigError: another `signal`.
    """

    signal: Signal = "informative"

    def __post_init__(self) -> None:
        require(
            self.signal in SIGNALS,
            "advantage.signal",
            wanted=" or ".join(SIGNALS),
            got=self.signal,
            remedy="The usual one is informative.",
        )

    @torch.no_grad()
    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards. One collective."""
        batch = view.batch
        group = group_statistics(batch.rewards_B, batch.group_ids_B, batch.valid_B)
        signal_B = SIGNALS[self.signal](batch, group)
        answers, signal = view.all_sum(torch.stack([batch.valid_B.double().sum(), signal_B.double().sum()])).unbind()
        return (snapped_deviations(group) * (answers / signal.clamp(min=1))).to(batch.rewards_B.dtype)

    def min_completions(self) -> int:
        """One completion has nothing to be compared with."""
        return 2
