"""Pure mathematics: torch and the standard library only. Tensors in, tensors out; sums over ranks are passed in."""

from delta_lightning.functional.advantages import GroupStatistics, group_standardise, group_statistics
from delta_lightning.functional.delta import (
    centroids,
    delta_coefficients,
    gates,
    identity,
    margins,
    normalise,
    range_map,
    row_blocks,
    side_std,
    side_weights,
    stream_coefficients,
)
from delta_lightning.functional.policy import clamped_log_ratio, clipped_surrogate, kl_k3
from delta_lightning.functional.reduction import token_mean_weights

__all__ = [
    "GroupStatistics",
    "centroids",
    "clamped_log_ratio",
    "clipped_surrogate",
    "delta_coefficients",
    "gates",
    "group_standardise",
    "group_statistics",
    "identity",
    "kl_k3",
    "margins",
    "normalise",
    "range_map",
    "row_blocks",
    "side_std",
    "side_weights",
    "stream_coefficients",
    "token_mean_weights",
]
