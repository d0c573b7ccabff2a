"""Features that cost products with the LM head: computed at the first pass, then kept like hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.functional.logprobs import chunk_tokens
from delta_lightning.interfaces import Head

FromLogits = Callable[[Tensor, Tensor, Head], Tensor]


class KeptFeatures:
    """[N, D] features of this rank's tokens, in the dtype of its hidden states.

    Args:
        tokens: the tokens. from_logits: logits [n, V], token ids [n] and the head -> features [n, D].
        logits_bytes: of the float32 logits held at a time.
    """

    def __init__(self, tokens: TokenStream, from_logits: FromLogits, *, logits_bytes: int) -> None:
        self._tokens, self._from_logits, self._logits_bytes = tokens, from_logits, logits_bytes
        self._kept: list[Tensor] | None = None

    def __call__(self) -> Iterator[Tensor]:
        """The features, micro-batch by micro-batch."""
        if self._kept is None:
            with self._tokens.view.head() as head:
                self._kept = [self._features(hidden_ND, targets_N, head) for _, _, targets_N, hidden_ND in self._tokens()]
        yield from self._kept

    def _features(self, hidden_ND: Tensor, targets_N: Tensor, head: Head) -> Tensor:
        weight_VD = head.weight_VD
        step = chunk_tokens(len(weight_VD), self._logits_bytes)
        wide = torch.promote_types(hidden_ND.dtype, weight_VD.dtype)  # a cache may have rounded the states, not the head
        out = torch.empty_like(hidden_ND)
        for start in range(0, len(targets_N), step):
            part = slice(start, start + step)
            logits_NV = head.logits(hidden_ND[part].to(wide))
            out[part] = self._from_logits(logits_NV, targets_N[part], head)
        return out
