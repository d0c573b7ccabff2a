"""OTB: a baseline per token position, optimal for the gradient gathered so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.token_baseline import gradient_energy, token_baseline_advantages
from delta_lightning.interfaces import AdvantageEstimator, StepView
from delta_lightning.types import Need

TAILS: Mapping[str, bool] = {"zero": False, "own": True}


@dataclass(frozen=True, kw_only=True)
class OptimalTokenBaseline(AdvantageEstimator):
    """A_it = R_i - B_t, B_t = sum_j W_jt R_j / (sum_j W_jt + eps) over a prompt's group (Li et al., arXiv 2602.07078), [B, T].

    W_it = sum over the first t trained tokens s of 1 - 2 p_s + sum_v p_sv^2: the squared norm of the gradient of log p with
    respect to the logits, a proxy of the gradient that response i has gathered. The sums run over the responses that have a
    t-th trained token. Probabilities are those of theta_old at the sampling temperature; no gradient is taken.

    The advantage differs between tokens of one response, and may have both signs in it. Parts that need one advantage per
    response refuse this estimator. It costs the scoring pass before it (which is made anyway) and one more sum over the
    vocabulary.

    Exactly 0: groups of equal rewards (within 1e-6 of their mean), groups with fewer than two verdicts, rows without one,
    everything outside the mask, and whatever is below 1e-6: where all responses that are that long have one reward, rounding
    would choose a sign. `eps` draws B_t to the group's mean where hardly any gradient has been gathered; in verl it draws B_t
    to 0. verl can also weigh W by squared importance weights; here it is not weighted.

    Args:
        eps: added to the sum of W, which is in units of a squared probability; at least 0.
        tail: B_t where a single response of the group is that long: "zero" makes A the reward there, as verl does by default;
            "own" is the formula, in which the response is its own baseline and A is 0.

    Raises:
        ConfigError: a field out of range.
    """

    eps: float = 1e-8
    tail: Literal["zero", "own"] = "zero"

    def __post_init__(self) -> None:
        require(self.eps >= 0, "advantage.eps", wanted="at least 0", got=self.eps, remedy="The usual value is 1e-8.")
        require(self.tail in TAILS, "advantage.tail", wanted=" or ".join(TAILS), got=self.tail, remedy="verl uses zero.")

    @torch.no_grad()
    def advantages(self, view: StepView) -> Tensor:
        """[B, T], in the dtype of the rewards, or float64 if the scores are; in units of the reward."""
        batch = view.batch
        energy_BT = torch.zeros_like(batch.loss_mask_BT, dtype=torch.float64)
        dtype = batch.rewards_B.dtype
        for rows, scores in view.passes():
            if scores.sum_p_squared_BT is None:
                raise ValueError("advantage.OptimalTokenBaseline: passes() must yield sum_p_squared_BT")
            energy_BT[rows] = gradient_energy(scores.logprobs_BT, scores.sum_p_squared_BT)
            dtype = torch.promote_types(dtype, scores.logprobs_BT.dtype)
        advantages_BT = token_baseline_advantages(
            batch.rewards_B,
            batch.group_ids_B,
            batch.valid_B,
            batch.loss_mask_BT,
            energy_BT,
            eps=self.eps,
            keep_tail=TAILS[self.tail],
        )
        return advantages_BT.to(dtype)

    def needs(self) -> frozenset[Need]:
        """Log-probabilities and sums of squared probabilities, before the estimator runs."""
        return frozenset({Need.SCORES, Need.SUM_P_SQUARED})

    def min_completions(self) -> int:
        """One completion has nothing to be compared with."""
        return 2

    def per_token(self) -> bool:
        """One advantage per token."""
        return True
