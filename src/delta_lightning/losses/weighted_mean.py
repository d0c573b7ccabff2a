"""The mean of token losses weighted by credit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.errors import RunError
from delta_lightning.interfaces import Reduction
from delta_lightning.types import Experience, StepTotals


@dataclass(frozen=True, kw_only=True)
class WeightedMean(Reduction):
    """1 / Z on every trained token, Z the sum of the credit scale over the trained tokens of the optimiser step, all ranks.

    The loss already holds the credit: the clipped surrogate of scale * A is scale times that of A. With 1 / Z on each token the
    objective is sum(scale * loss) / sum(scale), eq. 8 of DelTA (arXiv 2605.21467), and credit counts once. Meant for credit
    that nobody has normalised, as `Delta(normaliser="none")`. Where the mean of the credit over the mini-batch is 1 it is
    `TokenMean`; DelTA's own normalisation makes it 1 over the rollout step, whose mini-batches differ a little.

    Penalties are divided by Z too. The shift of additive credit is not in Z. A step whose credit is all 0 trains nothing.

    It has no fields.

    Raises:
        RunError: the credit of an optimiser step sums to less than 0, so that the mean would turn the gradient around.
    """

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        """[B, T], in the dtype of the log-probabilities; all 0 if the credit sums to 0."""
        if totals.credit < 0:
            raise RunError(
                f"the credit of an optimiser step sums to {totals.credit:.6g}: a weighted mean has no meaning. "
                "Use reduction TokenMean with credit that may be negative."
            )
        mask_BT = experience.batch.loss_mask_BT.to(experience.old_logprobs_BT.dtype)
        return mask_BT * (1.0 / totals.credit if totals.credit > 0 else 0.0)
