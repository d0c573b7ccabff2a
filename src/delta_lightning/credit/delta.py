"""DelTA: discriminative token credit assignment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.delta import row_blocks, stream_coefficients
from delta_lightning.functional.logprobs import scatter_tokens
from delta_lightning.interfaces import NOTHING, CreditAssigner, StepView
from delta_lightning.types import Credit, Need


@dataclass(frozen=True, kw_only=True)
class Delta(CreditAssigner):
    """DelTA (Zhang, Wu and Lin, arXiv 2605.21467): tokens that tell good answers from bad ones count more.

    Each trained token has the proxy v = (1 - p) h, with p its probability and h the LM head's input that predicted it: the
    gradient of its log-probability with respect to its own row of the LM head. On each side of the advantage's sign, a
    centroid of v is taken; a token closer to its own centroid than to the other gets a gate alpha above 1/2. The coefficient
    is low + (high - low) alpha, divided by its mean over all trained tokens of the rollout step, on all ranks. Tokens of
    responses with advantage 0 get `low` before that division. The exact formulas are in `functional.delta`.

    If no response has a positive advantage, or none a negative one, all coefficients are 1. Not so in the official code,
    which also takes the statistics on each rank alone.

    Args:
        refinements: K, how often the centroids are recomputed with gated weights; at least 0. The paper uses 1.
        low: coefficient of a token with gate 0, before normalisation; at least 0.
        high: coefficient of a token with gate 1, before normalisation; above 0 and at least `low`. `low == high` is exactly
            `Uniform`.

    Raises:
        ConfigError: a field out of range, or an advantage estimator that gives one advantage per token.
    """

    refinements: int = 1
    low: float = 0.8
    high: float = 1.2

    def __post_init__(self) -> None:
        require(
            self.refinements >= 0,
            "credit.refinements",
            wanted="at least 0",
            got=self.refinements,
            remedy="The paper uses 1; 0 turns refinement off.",
        )
        require(self.low >= 0, "credit.low", wanted="at least 0", got=self.low, remedy="The paper uses 0.8.")
        require(self.high > 0, "credit.high", wanted="above 0", got=self.high, remedy="The paper uses 1.2.")
        require(
            self.low <= self.high,
            "credit.low",
            wanted=f"at most credit.high ({self.high})",
            got=self.low,
            remedy="Swap the two, or make them equal for uniform credit.",
        )

    def credit(self, view: StepView) -> Credit:
        """One coefficient per trained token, [B, T]; float32, or float64 for float64 models."""
        mask_BT = view.batch.loss_mask_BT
        if self.low == self.high:
            return Credit(scale_BT=mask_BT.to(torch.float32))
        proxies = _Proxies(view)
        coefficients_N = stream_coefficients(
            proxies,
            _advantages_per_token(view),
            refinements=self.refinements,
            low=self.low,
            high=self.high,
            all_sum=view.all_sum,
        )
        return Credit(scale_BT=scatter_tokens(coefficients_N.to(proxies.dtype), mask_BT))

    def needs(self) -> frozenset[Need]:
        """Hidden states, unless credit is uniform anyway."""
        return NOTHING if self.low == self.high else frozenset({Need.HIDDEN})

    def token_level(self) -> bool:
        """Credit differs between tokens unless `low == high`."""
        return self.low != self.high


def _advantages_per_token(view: StepView) -> Tensor:
    """The advantage of each trained token's response, [N]; rows in order, tokens in order."""
    advantages = view.advantages
    if advantages is None:
        raise ValueError("credit.Delta: the advantages must be known before credit is assigned")
    require(
        advantages.ndim == 1,
        "credit.Delta",
        wanted="one advantage per response, [B]",
        got=f"shape {list(advantages.shape)}",
        remedy="Choose an advantage estimator without a baseline per token, or another credit assigner.",
    )
    mask_BT = view.batch.loss_mask_BT
    return advantages[:, None].expand(mask_BT.shape)[mask_BT]


class _Proxies:
    """v = (1 - p) h of the trained tokens, block by block, computed anew at each pass; `dtype` is that of the last block."""

    def __init__(self, view: StepView) -> None:
        self.view = view
        self.dtype = torch.float32

    def __call__(self) -> Iterator[Tensor]:
        mask_BT = self.view.batch.loss_mask_BT
        seen = 0
        for rows, scores in self.view.passes():
            if rows.start != seen or scores.hidden_ND is None:
                raise ValueError("credit.Delta: passes() must yield the rows in order, with hidden states")
            seen = rows.stop
            logprobs_N = scores.logprobs_BT[mask_BT[rows]]
            if len(logprobs_N) != len(scores.hidden_ND):
                raise ValueError(f"credit.Delta: {len(scores.hidden_ND)} hidden states for {len(logprobs_N)} trained tokens")
            self.dtype = logprobs_N.dtype
            # 1 - exp(logp) without cancellation where p is close to 1.
            weights_N = -torch.expm1(logprobs_N)
            for part in row_blocks(*scores.hidden_ND.shape):
                yield weights_N[part, None] * scores.hidden_ND[part].to(self.dtype)
