"""Dr. GRPO's reduction: token sums over a constant length."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.sequence_weights import per_sequence
from delta_lightning.interfaces import Reduction
from delta_lightning.types import Experience, StepTotals


@dataclass(frozen=True, kw_only=True)
class ConstantLength(Reduction):
    """1 / (sequences * length) on every trained token (Dr. GRPO, Liu et al., arXiv 2503.20783).

    No token's weight depends on the length of any answer. Sequences are those with at least one trained token, over all
    micro-batches and ranks of the optimiser step.

    Args:
        length: the constant, in tokens, above 0. The paper's is the longest answer that may be sampled: set it to
            `sampling.max_new_tokens`. The default is that of its scripts.

    Raises:
        ConfigError: a field out of range.
    """

    length: int = 3000

    def __post_init__(self) -> None:
        require(
            self.length > 0,
            "reduction.length",
            wanted="above 0, tokens",
            got=self.length,
            remedy="The usual value is sampling.max_new_tokens.",
        )

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        """[B, T], in the dtype of the log-probabilities; all 0 if the step trains no token."""
        mask_BT = experience.batch.loss_mask_BT.to(experience.old_logprobs_BT.dtype)
        return mask_BT * per_sequence(totals.sequences, constant=self.length)
