"""Truncated importance sampling, token by token."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.corrections.log_ratio import Against, check_fields, sampler_log_ratio
from delta_lightning.errors import require
from delta_lightning.functional.corrections import held_ratio
from delta_lightning.interfaces import RolloutCorrection, StepView
from delta_lightning.types import Correction


@dataclass(frozen=True, kw_only=True)
class TruncatedImportance(RolloutCorrection):
    """w = min(rho, cap), rho = pi_old / mu of the token; the mask stays as it is (TIS).

    F. Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025
    (fengyao.notion.site/off-policy-rl). A token's weight corrects that token alone, not the way the sampler got there: the
    gradient is biased and its variance is low. A ratio beyond the clamp counts as the clamp.

    Args:
        cap: largest weight, above 0; 1.5 to 5 is usual.
        against: mu. "behaviour": the distribution really sampled from; "raw": before top-p and top-k cut it.
        log_ratio_clamp: bound on |log rho|, nats, above 0.

    Raises:
        ConfigError: a field out of range.
    """

    cap: float = 2.0
    against: Against = "behaviour"
    log_ratio_clamp: float = 20.0

    def __post_init__(self) -> None:
        check_fields(against=self.against, log_ratio_clamp=self.log_ratio_clamp)
        require(self.cap > 0, "correction.cap", wanted="above 0", got=self.cap, remedy="The usual value is 2.")

    def correct(self, view: StepView) -> Correction:
        """Weights in (0, cap], [B, T], 0 outside the mask; the mask itself."""
        mask_BT = view.batch.loss_mask_BT
        ratio_BT = held_ratio(sampler_log_ratio(view, self.against), clamp=self.log_ratio_clamp)
        return Correction(weights_BT=ratio_BT.clamp(max=self.cap) * mask_BT, mask_BT=mask_BT)
