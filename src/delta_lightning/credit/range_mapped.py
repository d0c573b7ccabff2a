"""What DelTA does with a gate, for other gates: the range map and the normalisation to mean 1."""

from __future__ import annotations

import torch
from torch import Tensor

from delta_lightning.credit.scopes import advantages_of
from delta_lightning.errors import require
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit

LEAST_MASS = 1e-8


def check_range(part: str, low: float, high: float) -> None:
    """Refuses a range that DelTA would refuse. Raises `ConfigError`."""
    require(low >= 0, f"credit.{part}.low", wanted="at least 0", got=low, remedy="DelTA uses 0.8.")
    require(high > 0, f"credit.{part}.high", wanted="above 0", got=high, remedy="DelTA uses 1.2.")
    wanted = f"at most credit.{part}.high ({high})"
    require(low <= high, f"credit.{part}.low", wanted=wanted, got=low, remedy="Swap the two.")


def range_mapped(view: StepView, gates_BT: Tensor, *, low: float, high: float, dtype: torch.dtype) -> Credit:
    """scale = (low + (high - low) gate) N / Z, with gate 0 where A = 0; mean 1 over the trained tokens of all ranks.

    Args:
        gates_BT: in [0, 1], float64. dtype: of the result.
    """
    mask_BT = view.batch.loss_mask_BT
    signal_BT = (advantages_of(view) != 0) & mask_BT
    values_BT = (low + (high - low) * gates_BT.double() * signal_BT) * mask_BT
    count, mass = view.all_sum(torch.stack([mask_BT.sum().double(), values_BT.sum()])).unbind()
    if float(mass) < LEAST_MASS:
        return Credit(scale_BT=mask_BT.to(dtype))
    return Credit(scale_BT=(values_BT * (count / mass)).to(dtype))
