"""Masked importance sampling of whole sequences."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.corrections.log_ratio import Against, check_band, check_fields, sampler_log_ratio
from delta_lightning.functional.corrections import held_ratio, row_sum, within
from delta_lightning.interfaces import RolloutCorrection, StepView
from delta_lightning.types import Correction


@dataclass(frozen=True, kw_only=True)
class SequenceMaskedImportance(RolloutCorrection):
    """w = product of rho over the sequence where low <= w <= high; any other sequence leaves the mask whole.

    J. Liu et al., "When Speed Kills Stability", 2025 (richardli.xyz/rl-collapse); the defaults are those of TRL's
    `sequence_mask`, TRL's own default. A rejected answer has already entered its group's baseline, where it stays: its reward
    is as good as any. The product grows with length, so long answers are rejected first; `StatisticRejection` over the mean
    does not have that bias. The product runs over the tokens in the mask.

    Args:
        low: smallest product kept, at least 0 and below 1; 0 bounds it above only.
        high: largest product kept, above 1.
        against: mu. "behaviour": the distribution really sampled from; "raw": before top-p and top-k cut it. With top-p below
            1 "behaviour" multiplies the kept mass of every position and the weights of long answers vanish: use "raw".
        log_ratio_clamp: bound on |log of the product|, nats, above 0; beyond it counts as the clamp.

    Raises:
        ConfigError: a field out of range.
    """

    low: float = 0.0
    high: float = 3.0
    against: Against = "behaviour"
    log_ratio_clamp: float = 20.0

    def __post_init__(self) -> None:
        check_fields(against=self.against, log_ratio_clamp=self.log_ratio_clamp)
        check_band(self.low, self.high)

    def correct(self, view: StepView) -> Correction:
        """Weights in [low, high], equal within a row, [B, T], 0 outside the mask that is left; the mask."""
        mask_BT, log_ratio_BT = view.batch.loss_mask_BT, sampler_log_ratio(view, self.against)
        log_product_B, clamp = row_sum(log_ratio_BT, mask_BT), self.log_ratio_clamp
        kept_BT = mask_BT & within(log_product_B, self.low, self.high, clamp=clamp)
        weight_B = held_ratio(log_product_B, clamp=clamp).to(log_ratio_BT.dtype)
        return Correction(weights_BT=weight_B * kept_BT, mask_BT=kept_BT)
