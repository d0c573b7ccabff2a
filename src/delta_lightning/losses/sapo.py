"""SAPO: a soft gate in place of the clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.functional.policy_token import drift_metrics, soft_gate, soft_gate_slope
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class SAPO(PolicyLoss):
    """-f(r) A with f(r) = (4 / tau) sigmoid(tau (r - 1)), r = pi / pi_old, tau by the sign of the token advantage A.

    Soft adaptive policy optimisation (Gao et al., arXiv 2511.20347). A token's gradient is -A grad log p times
    r sech^2(tau (r - 1) / 2): 1 at r = 1 for any tau, 0 at both ends, never exactly 0. It is not bounded by 1: at tau = 1 and
    r = 2 it is 1.57. At r = 1 the value is -2 A / tau, so values of different tau do not compare.
    Native reduction: the sequence mean of token means (`SequenceMean`); DelTA's experiments use the token mean.

    Args:
        tau_positive: temperature where A > 0; above 0, larger is narrower.
        tau_negative: temperature where A < 0; the paper makes it the larger one, since these updates are the less stable.

    Raises:
        ConfigError: a field out of range.
    """

    tau_positive: float = 1.0
    tau_negative: float = 1.05

    def __post_init__(self) -> None:
        for name in ("tau_positive", "tau_negative"):
            value = getattr(self, name)
            require(
                0 < value < float("inf"), f"loss.{name}", wanted="above 0", got=value, remedy="The paper uses 1.0 and 1.05."
            )

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], 0 outside the mask."""
        advantages_BT = experience.token_advantages_BT.to(scores.logprobs_BT.dtype)
        ratio_BT = clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT).exp()
        return -soft_gate(ratio_BT, self._temperature(advantages_BT)) * advantages_BT

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """The ratio, the k3 estimate of the KL, and `gate`: the factor on each token's gradient, 1 at ratio 1."""
        mask_BT = experience.batch.loss_mask_BT
        log_ratio_BT = clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT)
        temperature_BT = self._temperature(experience.token_advantages_BT.to(log_ratio_BT.dtype))
        gate_BT = soft_gate_slope(log_ratio_BT.exp(), temperature_BT)
        return {"gate": gate_BT * mask_BT, **drift_metrics(log_ratio_BT, mask_BT)}

    def _temperature(self, advantages_BT: Tensor) -> Tensor:
        negative_BT = torch.full_like(advantages_BT, self.tau_negative)
        return torch.where(advantages_BT > 0, torch.full_like(advantages_BT, self.tau_positive), negative_BT)
