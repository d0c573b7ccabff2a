"""What a row of some length costs a model, in floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RowCost:
    """Operations of one forward pass of a row of L tokens: `per_token` L + `per_pair` times the pairs that attention compares.

    A weight takes part in one multiplication and one addition per token: per_token = 2 (parameters - embedding table), where
    a head that shares the table counts. A pair of positions takes a product of queries with keys and one of weights with values
    in every head: per_pair = 4 heads head_dim. A causal layer compares L (L + 1) / 2 pairs; one with a window of w compares no
    more than w per token, w (w + 1) / 2 + (L - w) w for L > w. A backward pass costs twice as much: proportions stay.

    Attributes:
        per_token, per_pair: operations. full: layers that attend to everything before them. windows: one for each other layer.
    """

    per_token: float
    per_pair: float
    full: int
    windows: tuple[int, ...] = ()

    def __call__(self, length: int) -> float:
        """Operations of a row of `length` tokens."""
        pairs = self.full * _pairs(length, length) + sum(_pairs(length, window) for window in self.windows)
        return self.per_token * length + self.per_pair * pairs

    @classmethod
    def of(cls, model: Any) -> RowCost:
        """That of a causal LM of `transformers`, sharded or not."""
        config, table = model.config, model.model.embed_tokens.weight
        parameters = sum(parameter.numel() for parameter in model.parameters())
        shared = model.lm_head.weight is table
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        layers = config.num_hidden_layers
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
        sliding = sum(kind == "sliding_attention" for kind in kinds)
        return cls(
            per_token=2.0 * (parameters - (0 if shared else table.numel())),
            per_pair=4.0 * config.num_attention_heads * head,
            full=layers - sliding,
            windows=(int(config.sliding_window),) * sliding if sliding else (),
        )


def _pairs(length: int, window: int) -> float:
    near = min(length, window)
    return near * (near + 1) / 2 + (length - near) * near
