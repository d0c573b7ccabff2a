"""Weights that somebody else computed: a process judge, a reward function, the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from delta_lightning.errors import RunError, require
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Column(CreditAssigner):
    """The weight per token that the verifier put into its verdict (`Verdict.token_weights`), as scale.

    A verifier may compute them (a process reward, a judge of steps) or read them from the problem's reference. Answers whose
    verdict has none get 1 on every token. Negative weights are refused: they would turn the sign of an advantage. Weights are
    taken as they are; `Normalise` around this part divides them by their mean.

    Args:
        missing: what to do if no verdict of the rollout step carries weights: "error" stops the run, "uniform" gives 1.

    Raises:
        ConfigError: a field out of range. RunError: no weights where they must be, or negative ones.
    """

    missing: Literal["error", "uniform"] = "error"

    def __post_init__(self) -> None:
        require(self.missing in ("error", "uniform"), "credit.Column.missing", wanted="error or uniform", got=self.missing,
                remedy="Choose one.")  # fmt: skip

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """The weights, [B, T], float32."""
        mask_BT, given_BT = view.batch.loss_mask_BT, view.batch.token_weights_BT
        if given_BT is None and self.missing == "error":
            raise RunError("credit.Column: no verdict of this rollout step carries token_weights; give them in the verifier, "
                           "or set model.credit.missing=uniform")  # fmt: skip
        weights_BT = (torch.ones_like(mask_BT, dtype=torch.float32) if given_BT is None else given_BT) * mask_BT
        negative = view.all_sum((weights_BT < 0).sum())  # of all ranks: one that stopped alone would leave the others waiting
        if bool(negative > 0):
            raise RunError(f"credit.Column: {int(negative)} token weights are negative; weights must be at least 0, or they "
                           "would turn the sign of an advantage")  # fmt: skip
        return Credit(scale_BT=weights_BT)
