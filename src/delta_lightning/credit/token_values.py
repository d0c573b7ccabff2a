"""One value per trained token out of the scoring pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from delta_lightning.interfaces import StepView
from delta_lightning.types import TokenScores


def token_values(view: StepView, value: Callable[[TokenScores], Tensor | None]) -> Tensor:
    """[B, T] in the dtype of the scores (float32 without rows), detached, 0 outside the mask.

    Raises:
        ValueError: the scoring pass did not compute it, because no part declared the need.
    """
    mask_BT = view.batch.loss_mask_BT
    parts: list[Tensor] = []
    seen = 0
    for rows, scores in view.passes():
        found = value(scores)
        if found is None or rows.start != seen:
            raise ValueError("passes() must yield the rows in order, with what needs() declared")
        seen = rows.stop
        parts.append(found.detach() * mask_BT[rows])
    return torch.cat(parts) if parts else torch.zeros(mask_BT.shape, device=mask_BT.device)
