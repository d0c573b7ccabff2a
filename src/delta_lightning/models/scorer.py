"""What a causal LM says of given tokens: one forward pass of its body, then the chunked head on trained tokens only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from delta_lightning.functional.logprobs import (
    HeadOutput,
    chunk_tokens,
    chunked_head,
    head_logits,
    masked_tokens,
    scatter_tokens,
)
from delta_lightning.models.in_step import read
from delta_lightning.models.layout import RowLayout
from delta_lightning.models.padded import Padded
from delta_lightning.models.sharding import compute_dtype, device_of, full
from delta_lightning.types import Need, RolloutBatch, TokenScores

HEAD_BUDGET = 1 << 26  # bytes of float32 logits held at a time


@dataclass(frozen=True, kw_only=True)
class WholeHead:
    """The LM head as `interfaces.Head`: weight [V, D] and logits at the sampling temperature."""

    weight_VD: Tensor
    temperature: float

    def logits(self, hidden_ND: Tensor, vocabulary: slice = slice(None)) -> Tensor:
        """[N, D] -> [N, V], or those of some tokens of the vocabulary; the caller keeps N small."""
        return head_logits(hidden_ND, self.weight_VD[vocabulary], self.temperature)


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores rows with a `transformers` causal LM whose body is `model.model` and whose head is `model.lm_head`.

    Attributes:
        model: the causal LM. temperature: of the sampling distribution.
        layout: how rows go through the body; no attention mask is built here.
        head_budget_bytes: float32 logits held at a time; the vocabulary decides how many tokens that is.
    """

    model: Any
    temperature: float = 1.0
    head_budget_bytes: int = HEAD_BUDGET
    layout: RowLayout = field(default_factory=Padded)

    def score(self, batch: RolloutBatch, needs: frozenset[Need]) -> TokenScores:
        """[B, T] scores of the trained tokens of `batch`; with gradient where the caller allows it.

        A batch of no rows is scored as one row without trained tokens, so that its backward pass still touches every
        parameter (ranks must stay in step).
        """
        tokens_BT, real_BT, mask_BT = batch.token_ids_BT, batch.attention_mask_BT, batch.loss_mask_BT
        if tokens_BT.shape[0] == 0:
            tokens_BT, real_BT, mask_BT = tokens_BT.new_zeros(1, 2), real_BT.new_ones(1, 2), mask_BT.new_zeros(1, 2)
        out, hidden_ND = read(self.model, self._read, tokens_BT, real_BT, mask_BT, needs)
        rows = slice(0, batch.num_sequences)
        return TokenScores(
            logprobs_BT=scatter_tokens(out.logprobs_N, mask_BT)[rows],
            entropies_BT=scatter_tokens(out.entropies_N, mask_BT)[rows] if Need.ENTROPY in needs else None,
            hidden_ND=hidden_ND if Need.HIDDEN in needs else None,
            sum_p_squared_BT=scatter_tokens(out.sum_p_squared_N, mask_BT)[rows] if Need.SUM_P_SQUARED in needs else None,
        )

    def _read(
        self, model: Any, tokens_BT: Tensor, real_BT: Tensor, mask_BT: Tensor, needs: frozenset[Need]
    ) -> tuple[HeadOutput, Tensor]:
        """Runs where embedding, norm and head are whole: the head's values, and the hidden states, detached."""
        hidden_ND = self.layout.predicting(model.model, tokens_BT, real_BT, mask_BT)
        weight_VD = model.lm_head.weight
        out = chunked_head(
            hidden_ND,
            weight_VD,
            masked_tokens(tokens_BT, mask_BT),
            temperature=self.temperature,
            chunk=chunk_tokens(weight_VD.shape[0], self.head_budget_bytes),
            with_entropy=bool(needs & {Need.ENTROPY, Need.SUM_P_SQUARED}),
        )
        return out, hidden_ND.detach()

    @contextmanager
    def head(self) -> Iterator[WholeHead]:
        """The head's weight, detached, for parts that declared `Need.HEAD`; a copy of it, and collective, under sharding."""
        yield WholeHead(weight_VD=full(self.model.lm_head.weight), temperature=self.temperature)

    @property
    def hidden_width(self) -> int:
        """D."""
        return int(self.model.lm_head.weight.shape[1])

    @property
    def hidden_itemsize(self) -> int:
        """Bytes of one element of a hidden state, in the dtype that the model computes in."""
        return compute_dtype(self.model).itemsize

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)
