"""The gradient of an optimiser step: its global norm, and the limit on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import RunError


def clip(policy: Any, max_norm: float, *, step: int) -> Tensor:
    """Scales the gradients to a global norm of at most `max_norm` (0: no limit) and gives the norm before. Collective.

    A norm that is not finite stops the run before it harms the weights: raises `RunError`.
    """
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), max_norm if max_norm > 0 else float("inf"))
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if not bool(torch.isfinite(norm)):
        raise RunError(f"the gradient norm is {float(norm)} at optimiser step {step}; no update was made")
    return norm
