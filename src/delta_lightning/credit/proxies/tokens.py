"""What every proxy reads: the trained tokens of a view, micro-batch by micro-batch, checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from delta_lightning.interfaces import StepView


class ScoredTokens(NamedTuple):
    """The trained tokens of one micro-batch: which of this rank's N, log-probabilities, token ids, hidden states."""

    part: slice
    logprobs_N: Tensor
    targets_N: Tensor
    hidden_ND: Tensor


class TokenStream:
    """A pass over the trained tokens for each call. `dtype` is that of the log-probabilities, float32 before any was seen."""

    def __init__(self, view: StepView) -> None:
        self.view = view
        self.dtype = torch.float32

    def __call__(self) -> Iterator[ScoredTokens]:
        """One item per micro-batch, rows in order; none on a rank without rows."""
        batch = self.view.batch
        seen = start = 0
        for rows, scores in self.view.passes():
            if rows.start != seen or scores.hidden_ND is None:
                raise ValueError("credit.Delta: passes() must yield the rows in order, with hidden states")
            seen = rows.stop
            mask_BT = batch.loss_mask_BT[rows]
            logprobs_N, hidden_ND = scores.logprobs_BT[mask_BT].detach(), scores.hidden_ND.detach()
            if len(logprobs_N) != len(hidden_ND):
                raise ValueError(f"credit.Delta: {len(hidden_ND)} hidden states for {len(logprobs_N)} trained tokens")
            self.dtype = logprobs_N.dtype
            part = slice(start, start + len(logprobs_N))
            yield ScoredTokens(part, logprobs_N, batch.token_ids_BT[rows][mask_BT], hidden_ND)
            start = part.stop
