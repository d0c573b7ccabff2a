"""Floating-point operations of passes; a multiplication with its addition counts as 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the FLOPs of a decoder follow.

    Attributes:
        matrices: elements of the matrices of all decoder layers that a token is multiplied with. frozen: of them, those
            that are not trained. head_frozen: the head is not trained.
        hidden, vocabulary: D and V. query_width: query heads times width of a head.
        windows: of each layer, how many positions back a token sees, itself included; None for all.
        key_value_width: key-value heads times width of a head.
    """

    matrices: int
    hidden: int
    vocabulary: int
    query_width: int
    key_value_width: int
    windows: Sequence[int | None]
    frozen: int = 0
    head_frozen: bool = False

    @classmethod
    def of(cls, model: Any) -> Shape:
        """That of a causal LM on any device. A mixture of experts counts all experts, which is more than a token uses."""
        config = model.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        window = getattr(config, "sliding_window", None)
        vocabulary, hidden = model.lm_head.weight.shape
        matrices = [p for layer in model.model.layers for p in layer.parameters() if p.ndim >= 2]
        return cls(
            matrices=sum(p.numel() for p in matrices), frozen=sum(p.numel() for p in matrices if not p.requires_grad),
            head_frozen=not model.lm_head.weight.requires_grad,
            hidden=int(hidden), vocabulary=int(vocabulary), query_width=config.num_attention_heads * width,
            key_value_width=heads * width, windows=[window if kind == "sliding_attention" else None for kind in kinds],
        )  # fmt: skip


def body_flops(shape: Shape, lengths: Sequence[int]) -> int:
    """Forward pass of the decoder layers over sequences of L tokens each, causal attention without its masked half:

        sum over sequences of  2 L matrices + sum over layers of 4 query_width C(L)

    C(L) is the number of (query, key) pairs: L (L + 1) / 2, or with a window w < L  w (w + 1) / 2 + (L - w) w. The 4 is
    2 for scores and 2 for values. Embedding, norms, rotations and softmax are left out.
    """
    total = 0
    counts: dict[int, int] = {}
    for length in lengths:
        counts[length] = counts.get(length, 0) + 1
    for length, count in counts.items():
        total += count * (2 * length * shape.matrices + 4 * shape.query_width * sum(_pairs(length, w) for w in shape.windows))
    return total


def head_flops(shape: Shape, tokens: int) -> int:
    """One product of `tokens` hidden states with the LM head: 2 N V D."""
    return 2 * tokens * shape.vocabulary * shape.hidden


@dataclass(frozen=True, kw_only=True)
class UpdateFlops:
    """An update: `model`, what its formula needs (3 forward passes); `repeated`, what is computed twice to save memory."""

    model: int
    repeated: int


def update_flops(shape: Shape, lengths: Sequence[int], trained: int, *, activation_checkpointing: bool) -> UpdateFlops:
    """Forward, and backward with respect to inputs and to weights: 3 times the forward pass of body and head.

    Less where weights are frozen (an adapter's base): 2 per element and token, since no gradient of their own is computed.
    Repeated are the head's logits (one product, always) and, with activation checkpointing, the body's forward pass.
    """
    body, head = body_flops(shape, lengths), head_flops(shape, trained)
    spared = 2 * sum(lengths) * shape.frozen + (head if shape.head_frozen else 0)
    return UpdateFlops(model=3 * (body + head) - spared, repeated=head + (body if activation_checkpointing else 0))


def _pairs(length: int, window: int | None) -> int:
    if window is None or window >= length:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window
