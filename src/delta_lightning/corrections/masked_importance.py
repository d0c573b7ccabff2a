"""Masked importance sampling, token by token."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.corrections.log_ratio import Against, check_band, check_fields, sampler_log_ratio
from delta_lightning.functional.corrections import held_ratio, within
from delta_lightning.interfaces import RolloutCorrection, StepView
from delta_lightning.types import Correction


@dataclass(frozen=True, kw_only=True)
class MaskedImportance(RolloutCorrection):
    """w = rho = pi_old / mu where low <= rho <= high; a token outside leaves the mask (MIS).

    The defaults are those of TRL's `token_mask`. There the weight of a token outside is 0 and the token still counts in the
    denominators of the loss; here it leaves numerator, denominator and every later statistic, credit included.

    Args:
        low: smallest ratio kept, at least 0 and below 1; 0 bounds the ratio above only.
        high: largest ratio kept, above 1.
        against: mu. "behaviour": the distribution really sampled from; "raw": before top-p and top-k cut it.
        log_ratio_clamp: bound on |log rho|, nats, above 0; |log rho| beyond it counts as the clamp.

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
        """Weights in [low, high], [B, T], 0 outside the mask that is left; the mask."""
        log_ratio_BT, clamp = sampler_log_ratio(view, self.against), self.log_ratio_clamp
        mask_BT = view.batch.loss_mask_BT & within(log_ratio_BT, self.low, self.high, clamp=clamp)
        return Correction(weights_BT=held_ratio(log_ratio_BT, clamp=clamp) * mask_BT, mask_BT=mask_BT)
