"""A sampler with a copy of the model, so that weights can fail to arrive, and the ways in which they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from delta_lightning.interfaces import SamplerContext, SamplerSession
from delta_lightning.samplers import HFSampler
from delta_lightning.types import SyncReceipt
from support.lora import merged

Weights = Iterable[tuple[str, Tensor]]
Fault = Callable[[Weights], Weights]


class CopySession:
    """Samples from a copy of the model, its head a tensor of its own even where the model's is tied, as engines have it.

    The copy knows no adapter: like an engine it is given merged weights, under the base's names.

    Args:
        fault: what becomes of weights on their way into the copy; the receipt counts what was sent, as if nothing were wrong.
        dtype: of the copy. forget_tied_head: loads only what is sent, and a tied head is sent once.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        fault: Fault = lambda weights: weights,
        dtype: torch.dtype | None = None,
        forget_tied_head: bool = False,
    ) -> None:
        self.fault, self.forget = fault, forget_tied_head
        self.copy = merged(model).to(dtype or next(model.parameters()).dtype)
        if model.config.tie_word_embeddings:
            self.copy.lm_head.weight = torch.nn.Parameter(self.copy.model.embed_tokens.weight.detach().clone())
        context = SamplerContext(model=self.copy, tokenizer=tokenizer, device=torch.device("cpu"))
        self.inner: SamplerSession = HFSampler(threads=1).open(context)
        self.generate, self.logprobs, self.close = self.inner.generate, self.inner.logprobs, self.inner.close

    def logprobs_by_engine(self, token_ids: Sequence[Sequence[int]]) -> dict[str, list[Tensor]]:
        return {"": self.logprobs(token_ids)}

    def update_weights(self, version: int, weights: Weights) -> SyncReceipt:
        sent = [(name, value.clone()) for name, value in weights]
        tied = self.copy.config.tie_word_embeddings and not self.forget
        own = dict(self.copy.named_parameters())
        with torch.no_grad():
            for name, value in self.fault(sent):
                own[name].copy_(value)
                if tied and name == "model.embed_tokens.weight":
                    own["lm_head.weight"].copy_(value)
        self.inner.update_weights(version, [])
        size = sum(value.numel() * value.element_size() for _, value in sent)
        return SyncReceipt(version=version, num_tensors=len(sent), num_bytes=size, seconds=0.0)


def nothing(weights: Weights) -> Weights:
    """Stale weights: none arrives."""
    return ()


def first_half(weights: Weights) -> Weights:
    """Half of the tensors arrive."""
    sent = list(weights)
    return sent[: len(sent) // 2]


def swapped_layers(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Layers 0 and 1 in each other's place."""
    other = {"layers.0.": "layers.1.", "layers.1.": "layers.0."}
    for name, value in weights:
        here = next((place for place in other if place in name), None)
        yield (name if here is None else name.replace(here, other[here])), value
