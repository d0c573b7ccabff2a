"""Rollout filters: which groups and tokens are trained on. No filter is an empty list."""

from delta_lightning.filters.accuracy_range import AccuracyRange
from delta_lightning.filters.duplicates import Duplicates
from delta_lightning.filters.truncated import Truncated
from delta_lightning.filters.zero_variance import ZeroVariance

__all__ = ["AccuracyRange", "Duplicates", "Truncated", "ZeroVariance"]
