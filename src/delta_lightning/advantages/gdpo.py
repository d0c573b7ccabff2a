"""GDPO: each component of the reward standardised by itself, then added up and whitened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.advantages.whitening import Whitening
from delta_lightning.errors import require
from delta_lightning.functional.advantages import STD, group_standardise
from delta_lightning.functional.whitening import Counted
from delta_lightning.interfaces import StepView
from delta_lightning.types import RolloutBatch


@dataclass(frozen=True, kw_only=True)
class GDPO(Whitening):
    """Sum over components k of w_k (R_k - mean_k) / (std_k + group_eps), then whitened (Liu et al., arXiv 2601.05242), [B].

    Mean and std are of the prompt's group; the sum is then centred and divided by sqrt(variance + eps) over the rollout step,
    all prompts and ranks. A reward that is itself a sum hides its parts: a component with a large spread drowns the others.
    Here each has spread 1 before the weights. The components are those that the verifier names in its verdicts. The scalar
    reward is read only of verdicts that name none beside others that do (a timeout, a data set without components): it stands
    for each of their components.

    A component of equal values in a group (within 1e-6 of their mean) adds exactly 0; so do groups with fewer than two
    verdicts. With tokens counted, the whitening shifts these by the mean of the sums (see `ReinforcePlusPlusBaseline`). Rows
    without a verdict or without a trained token get 0.

    Args:
        weights: the components to use and the weight of each, any finite number; null for all, each with weight 1. A
            component that the step's verdicts do not name is an error.
        group_eps: added to each group's standard deviation, in units of the component; at least 0.
        counted: what the whitening's mean and variance are taken over: "responses" as in the paper, or "tokens" as in verl.
        std: "unbiased" (n - 1) or "population" (n), for the groups and for the whitening.
        eps: added to the variance of the whitening; at least 0.

    Raises:
        ConfigError: a field out of range, verdicts without components, or a weight for a component that they do not name.
    """

    weights: Mapping[str, float] | None = None
    group_eps: float = 1e-6
    counted: Counted = "responses"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.group_eps >= 0, "advantage.group_eps", wanted="at least 0", got=self.group_eps,
                remedy="The usual value is 1e-6.")  # fmt: skip
        weights = self.weights
        require(
            weights is None or (len(weights) > 0 and all(math.isfinite(weight) for weight in weights.values())),
            "advantage.weights",
            wanted="a finite number for each of at least one component, or null",
            got=weights,
            remedy="For example {correct: 1.0, format: 0.5}; null uses every component with weight 1.",
        )

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards. Two collectives."""
        batch = view.batch
        total_B = torch.zeros_like(batch.rewards_B, dtype=torch.float64)
        for column, weight in self._columns(batch):
            values_B = batch.components_BR[:, column].double()
            total_B += weight * group_standardise(
                values_B, batch.group_ids_B, batch.valid_B, eps=self.group_eps, std=STD[self.std]
            )
        return self.whitened(view, total_B)

    def min_completions(self) -> int:
        """One completion has nothing to be compared with."""
        return 2

    def _columns(self, batch: RolloutBatch) -> list[tuple[int, float]]:
        # The names are the same on every rank, so all raise or none, and nobody waits in a collective.
        names = batch.component_names
        require(len(names) > 0, "advantage.GDPO", wanted="verdicts with components", got="none",
                remedy="Choose a verifier that gives components, or an estimator of one scalar reward.")  # fmt: skip
        wanted = dict.fromkeys(names, 1.0) if self.weights is None else self.weights
        unknown = sorted(set(wanted) - set(names))
        require(not unknown, "advantage.weights", wanted=f"names among {', '.join(names)}", got=", ".join(unknown),
                remedy="The verifier must name every weighted component in its verdicts.")  # fmt: skip
        return [(names.index(name), float(wanted[name])) for name in sorted(wanted)]
