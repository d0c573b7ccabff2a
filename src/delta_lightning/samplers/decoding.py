"""Decoding without copies: keys and values in buffers of our own, and grouped attention for single queries.

`transformers` grows its cache by concatenation, repeats keys and values for every group of query heads, and pads every row to
the longest, at every token. Here the rows that decode together are cut into segments of similar length; all linear layers run
over all rows at once, attention over one segment at a time. Importing this file imports transformers; `samplers.hf` does so
when it starts to sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from delta_lightning.samplers.segments import Segment

NAME = "sdpa_single_query"
# Families whose attention is softmax(q k^T scale + mask) v with a causal mask, which ends w positions back in a layer with
# `sliding_window` w. Others (chunks, sinks, caps) are given the masks that transformers makes, and one segment.
PLAIN_ATTENTION = frozenset({"llama", "qwen2", "qwen3", "olmo2", "olmo3"})


@dataclass(frozen=True)
class Pieces:
    """What a layer's cache hands to the attention in place of a tensor: keys, values and additive mask, segment by segment."""

    parts: tuple[tuple[Tensor, Tensor, Tensor | None], ...]


class SegmentedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values of all rows, in the buffers of their segments.

    Args:
        index: of the layer. segments: shared by all layers; the rows of a batch are theirs, in this order.
        pieces: give the attention `Pieces`, which only `single_query_attention` reads; else one segment's tensors.
    """

    def __init__(self, index: int, segments: Sequence[Segment], pieces: bool) -> None:
        super().__init__()
        self.index, self.segments, self.pieces, self.is_initialized = index, segments, pieces, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write the new position of every row; the result is views, never copies."""
        parts, start = [], 0
        for segment in self.segments:
            rows = slice(start, start + segment.size)
            parts.append(segment.write(self.index, key_states[rows], value_states[rows]))
            start = rows.stop
        if self.pieces:
            given = Pieces(tuple(parts))
            return given, given
        [(keys, values, _)] = parts
        return keys, values

    def get_seq_length(self) -> int:
        """Columns before the one that is being decoded, of a single segment."""
        return self.segments[0].end - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns and offset of a mask, for a single segment."""
        return self.segments[0].end, 0


def segmented_cache(num_layers: int, segments: Sequence[Segment], *, pieces: bool) -> Any:
    """A cache over the buffers of `segments`, whose newest column every layer fills in the forward pass."""
    return Cache(layers=[SegmentedLayer(index, segments, pieces) for index in range(num_layers)])


def prompt_cache(num_layers: int) -> Any:
    """An empty cache that keeps every position, those outside a sliding window too: `Segment.joined` takes it over."""
    return Cache(layers=[DynamicLayer() for _ in range(num_layers)])


def _single_query_attention(
    module: Any, query: Tensor, key: Any, value: Any, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Grouped attention of one query: the heads that share a key stand in the query dimension, so that nothing is repeated."""
    if isinstance(key, Pieces):
        return _piecewise(query, key, options.get("scaling"), options.get("sliding_window")), None
    groups = key.shape[1]
    if query.shape[2] > 1 or groups == query.shape[1] or options.get("position_bias") is not None:
        result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return result
    return _folded(query, key, value, attention_mask, options.get("scaling")), None


def _piecewise(query: Tensor, pieces: Pieces, scale: float | None, window: int | None) -> Tensor:
    outputs, start = [], 0
    for key, value, mask in pieces.parts:
        rows = slice(start, start + len(key))
        start = rows.stop
        if window is not None and key.shape[2] > window:  # the newest column included
            key, value = key[:, :, -window:], value[:, :, -window:]
            mask = None if mask is None else mask[..., -window:]
        outputs.append(_folded(query[rows], key, value, mask, scale))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _folded(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    rows, heads, _, width = query.shape
    groups = key.shape[1]
    out = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, groups, heads // groups, width), key, value, attn_mask=mask, scale=scale
    )
    return out.reshape(rows, heads, 1, width).transpose(1, 2)


AttentionInterface.register(NAME, _single_query_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def reads_pieces(model: Any) -> bool:
    """True inside `single_query_attention` for a family whose attention needs nothing but keys, values and a causal mask."""
    return bool(model.config._attn_implementation == NAME) and model.config.model_type in PLAIN_ATTENTION


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
