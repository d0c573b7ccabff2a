"""The token coefficients to which GRPO-lambda's trace comes down at theta_old."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.credit.positions import Normaliser, check_normaliser, positional_credit
from delta_lightning.errors import require
from delta_lightning.functional.token_positions import both_trace, recent_trace
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit

_TRACES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"recent": recent_trace, "both": both_trace}


@dataclass(frozen=True, kw_only=True)
class GRPOLambda(CreditAssigner):
    """c_j = sum over t >= j of tr(t, t - j): how often token j enters the traces of the tokens after it (arXiv 2510.00194).

    The paper replaces a token's log-ratio by a trace over the tokens before it, sum_l tr(t, l) log r_(t-l), tr = decay ** l
    ("recent") or max(decay ** l, decay ** (t - l)) ("both", t - l from 0), and clips the result. At theta_old its gradient is
    the plain policy gradient with these coefficients: c_j = (1 - decay ** (T - j + 1)) / (1 - decay) for "recent". So early
    tokens get more. This is that static form, without the clip of accumulated ratios and the clamp of negative advantages.

    Args:
        trace: "recent" or "both".
        decay: gamma lambda per token, above 0, at most 1. The paper finds 0.99 best.
        normaliser: "sequence" divides by the mean of each answer: without it coefficients grow to 1 / (1 - decay), a
            hundredfold step at 0.99; "batch" by the mean over all tokens of all ranks; "none" leaves them. Our choice.

    Raises:
        ConfigError: a field out of range.
    """

    trace: Literal["recent", "both"] = "recent"
    decay: float = 0.99
    normaliser: Normaliser = "sequence"

    def __post_init__(self) -> None:
        trace, decay = self.trace, self.decay
        require(trace in _TRACES, "credit.GRPOLambda.trace", wanted="recent or both", got=trace, remedy="Choose one.")
        require(
            0 < decay <= 1, "credit.GRPOLambda.decay", wanted="above 0, at most 1", got=decay, remedy="The paper uses 0.99."
        )
        check_normaliser("GRPOLambda", self.normaliser)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """[B, T], float32."""
        trace = _TRACES[self.trace]
        return positional_credit(view, lambda index_BT, length_B1: trace(index_BT, length_B1, self.decay), self.normaliser)
