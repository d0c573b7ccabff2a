"""The gradient of an optimiser step: its global norm, the limit on it, and what happens when it is not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import RunError, require


class Gradients:
    """Clips gradients, leaves out updates whose gradient is not finite, and counts them.

    A gradient counts as not finite when its global norm is: then nothing of it reaches the weights on any rank. Parameters,
    moments and the optimiser's own step counts stay as they are, to the bit; the run's optimiser step and the schedule advance,
    and the rollout step goes on with its next mini-batch.

    Args:
        max_norm: global norm to which gradients are clipped; 0 leaves them.
        max_skipped: updates in a row that may be left out; the next one ends the run. 0 ends it at the first.
    """

    def __init__(self, *, max_norm: float, max_skipped: int) -> None:
        require(max_norm >= 0, "model.max_grad_norm", wanted="0 (no clipping) or more", got=max_norm, remedy="1.0 is usual.")
        require(max_skipped >= 0, "model.max_skipped_updates", wanted="0 (end the run at once) or more updates in a row",
                got=max_skipped, remedy="3 is usual.")  # fmt: skip
        self.max_norm, self.max_skipped = max_norm, max_skipped
        self.skipped, self.in_a_row = 0, 0  # updates left out: since the run began, and without one that was made

    def clip(self, policy: Any, *, step: int, say: Callable[[str], None]) -> Tensor:
        """The global norm before clipping: sqrt of the sum of squares over all parameters and ranks. Collective.

        After a norm that is not finite no parameter has a gradient, so that the optimiser has nothing to do.

        Raises:
            RunError: too many such norms in a row.
        """
        limit = self.max_norm if self.max_norm > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), limit)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if bool(torch.isfinite(norm)):
            self.in_a_row = 0
            return norm
        let_go(policy)
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        said = f"the gradient norm is {float(norm)} at optimiser step {step}: no update was made"
        if self.in_a_row > self.max_skipped:
            raise RunError(
                f"{said}; {self.in_a_row} in a row, {self.skipped} in all (model.max_skipped_updates is {self.max_skipped}). "
                f"Lower the learning rate or model.max_grad_norm, and resume from an earlier checkpoint."
            )
        say(f"{said} ({self.in_a_row} in a row, {self.skipped} in all)")
        return norm

    def state_dict(self) -> dict[str, int]:
        """The counts, for a checkpoint."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting from a checkpoint."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]


def let_go(policy: Any) -> None:
    """No parameter has a gradient any more. Under `ddp` the buckets that gradients are summed in stay."""
    for parameter in policy.parameters():
        parameter.grad = None
