"""Decoding without copies: a key-value cache that is allocated once, and grouped attention for single queries.

`transformers` grows its cache by concatenation and repeats keys and values for every group of query heads, at every token.
Importing this file imports transformers; `samplers.hf` does so when it starts to sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_single_query"


class AllocatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values in buffers of a fixed number of positions, [rows, heads, capacity, width].

    Args:
        capacity: positions of the longest row, prompt and completion.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0
        self.buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new positions; the result is a view of all positions so far."""
        if self.buffers is None:
            rows, heads, _, width = key_states.shape
            shape = (rows, heads, self.capacity)
            self.buffers = (key_states.new_empty(*shape, width), value_states.new_empty(*shape, value_states.shape[-1]))
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        end = self.length + key_states.shape[-2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.length : end] = states
        self.length = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Positions written so far."""
        return self.length

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times."""
        self._refill(lambda used: used.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only the given rows."""
        self._refill(lambda used: used[indices])

    def _refill(self, rows: Any) -> None:
        assert self.buffers is not None
        refilled = []
        for buffer in self.buffers:
            used = rows(buffer[:, :, : self.length])
            fresh = buffer.new_empty(len(used), *buffer.shape[1:])
            fresh[:, :, : self.length] = used
            refilled.append(fresh)
        self.buffers = (refilled[0], refilled[1])


def allocated_cache(num_layers: int, capacity: int) -> Any:
    """A cache of `num_layers` layers with room for `capacity` positions."""
    return Cache(layers=[AllocatedLayer(capacity) for _ in range(num_layers)])


def _single_query_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Grouped attention of one query: the heads that share a key stand in the query dimension, so that nothing is repeated."""
    rows, heads, length, width = query.shape
    groups = key.shape[1]
    if length > 1 or groups == heads or options.get("position_bias") is not None:
        result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return result
    folded = query.reshape(rows, groups, heads // groups, width)
    out = torch.nn.functional.scaled_dot_product_attention(
        folded, key, value, attn_mask=attention_mask, scale=options.get("scaling")
    )
    return out.reshape(rows, heads, 1, width).transpose(1, 2), None


AttentionInterface.register(NAME, _single_query_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def single_query_attention(model: Any) -> Iterator[None]:
    """Use it within the block, if the model uses SDPA (other kernels group heads themselves)."""
    before = model.config._attn_implementation
    if before != "sdpa":
        yield
        return
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
