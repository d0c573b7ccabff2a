"""Pure mathematics: torch and the standard library only. Tensors in, tensors out; sums over ranks are passed in.

Importing the package imports nothing; its names are found when they are first used, since `random` is needed without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "GroupStatistics": "advantages",
    "group_standardise": "advantages",
    "group_statistics": "advantages",
    "centroids": "delta",
    "delta_coefficients": "delta",
    "gates": "delta",
    "identity": "delta",
    "margins": "delta",
    "normalise": "delta",
    "range_map": "delta",
    "row_blocks": "delta",
    "side_std": "delta",
    "side_weights": "delta",
    "stream_coefficients": "delta",
    "clamped_log_ratio": "policy",
    "clipped_surrogate": "policy",
    "kl_k3": "policy",
    "token_mean_weights": "reduction",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
