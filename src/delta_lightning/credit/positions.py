"""What assigners by position share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.credit.scopes import scope_means
from delta_lightning.errors import require
from delta_lightning.functional.token_positions import places
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit

Normaliser = Literal["sequence", "batch", "none"]
LEAST_MEAN = 1e-300


def check_normaliser(part: str, normaliser: str) -> None:
    """Raises `ConfigError` for one that is none."""
    require(normaliser in ("sequence", "batch", "none"), f"credit.{part}.normaliser", wanted="sequence, batch or none",
            got=normaliser, remedy="sequence moves credit within answers only.")  # fmt: skip


def positional_credit(view: StepView, weights: Callable[[Tensor, Tensor], Tensor], normaliser: Normaliser) -> Credit:
    """Scale `weights(index_BT, length_B1)` on trained tokens, divided by the mean of its sequence or of the batch; float32."""
    mask_BT = view.batch.loss_mask_BT
    values_BT = torch.where(mask_BT, weights(*places(mask_BT)), 0.0) if mask_BT.numel() else mask_BT.double()
    if normaliser != "none":
        (mean,) = scope_means(view, normaliser, values_BT)
        values_BT = values_BT / mean.clamp(min=LEAST_MEAN)
    return Credit(scale_BT=values_BT.float())
