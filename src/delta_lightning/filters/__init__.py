"""Rollout filters: which groups and tokens are trained on. No filter is an empty list."""

from delta_lightning.filters.zero_variance import ZeroVariance

__all__ = ["ZeroVariance"]
