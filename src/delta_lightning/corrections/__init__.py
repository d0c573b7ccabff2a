"""Rollout corrections: importance weights for the difference between sampler and trainer."""

from delta_lightning.corrections.no_correction import NoCorrection

__all__ = ["NoCorrection"]
