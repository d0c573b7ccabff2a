"""Operations of a row: those that torch counts in a forward pass of the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from delta_lightning.models.costs import RowCost
from support.models import tiny_model


def counted(model: Any, length: int) -> int:
    """Of the matrix products; eager attention compares all pairs, those that a causal or a sliding mask hides too."""
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, length, dtype=torch.int64), use_cache=False)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_operations_are_those_that_torch_counts(family: str, tied: bool) -> None:
    model = tiny_model(family, num_hidden_layers=4, tie_word_embeddings=tied)
    cost, length = RowCost.of(model), 24
    vectors = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1)  # of norms: no products
    # Rotary embeddings are an outer product of positions and frequencies: small, and none of a row's cost.
    rotary = 2 * length * (model.config.head_dim if family == "qwen3" else 8) // 2 * len(set(model.config.layer_types))
    wanted = (cost.per_token - 2 * vectors) * length + 4 * cost.per_pair * length**2
    assert counted(model, length) == pytest.approx(wanted, abs=rotary)
    assert (cost.full, cost.windows) == ((4, ()) if family == "qwen3" else (1, (8, 8, 8)))


@pytest.mark.parametrize("length", [1, 3, 8, 9, 30])
def test_pairs_are_those_of_the_masks(length: int) -> None:
    rows, columns = torch.arange(length)[:, None], torch.arange(length)[None]
    causal = columns <= rows
    near = causal & (columns > rows - 8)
    cost = RowCost(per_token=0.0, per_pair=1.0, full=2, windows=(8, 8, 8))
    assert cost(length) == 2 * int(causal.sum()) + 3 * int(near.sum())
