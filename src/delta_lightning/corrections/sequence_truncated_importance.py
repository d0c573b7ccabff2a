"""Truncated importance sampling of whole sequences."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.corrections.log_ratio import Against, check_fields, sampler_log_ratio
from delta_lightning.errors import require
from delta_lightning.functional.corrections import held_ratio, row_sum
from delta_lightning.interfaces import RolloutCorrection, StepView
from delta_lightning.types import Correction


@dataclass(frozen=True, kw_only=True)
class SequenceTruncatedImportance(RolloutCorrection):
    """w = min(product of rho over the sequence, cap) on each of its tokens; the mask stays as it is (sequence TIS).

    J. Liu et al., "When Speed Kills Stability: Demystifying RL Collapse from the Training-Inference Mismatch", 2025
    (richardli.xyz/rl-collapse). Without a cap the weight is unbiased for the sequence; it moves with length: a mean log-ratio
    of -0.001 nats is a weight of e^-20 at 20,000 tokens. The product runs over the tokens in the mask.

    Args:
        cap: largest weight, above 0; 2 to 10 is usual.
        against: mu. "behaviour": the distribution really sampled from; "raw": before top-p and top-k cut it. With top-p below
            1 "behaviour" multiplies the kept mass of every position and the weights of long answers vanish: use "raw".
        log_ratio_clamp: bound on |log of the product|, nats, above 0.

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
        """Weights in (0, cap], equal within a row, [B, T], 0 outside the mask; the mask itself."""
        mask_BT, log_ratio_BT = view.batch.loss_mask_BT, sampler_log_ratio(view, self.against)
        weight_B = held_ratio(row_sum(log_ratio_BT, mask_BT), clamp=self.log_ratio_clamp).clamp(max=self.cap)
        return Correction(weights_BT=weight_B.to(log_ratio_BT.dtype) * mask_BT, mask_BT=mask_BT)
