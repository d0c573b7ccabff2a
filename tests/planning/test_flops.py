"""FLOPs of small decoders, counted one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from delta_lightning.models import Tiny
from delta_lightning.models.adapted import attached
from delta_lightning.models.lora import LoRA
from delta_lightning.planning.flops import Shape, body_flops, head_flops, update_flops

SHAPE = Shape(matrices=1000, hidden=8, vocabulary=50, query_width=16, key_value_width=8, windows=[None, 3])


def counted(length: int) -> int:
    """2 per multiplication and addition: each token by the matrices, each (query, key) pair twice by the query's width."""
    pairs = sum(t + 1 for t in range(length)) + sum(min(t + 1, 3) for t in range(length))
    return 2 * 1000 * length + 4 * 16 * pairs


@pytest.mark.parametrize("lengths", [[1], [2, 3], [7, 7, 12]])
def test_body(lengths: list[int]) -> None:
    assert body_flops(SHAPE, lengths) == sum(map(counted, lengths))


def test_head() -> None:
    assert head_flops(SHAPE, 5) == 5 * 50 * 8 * 2


@pytest.mark.parametrize("recompute", [False, True])
def test_an_update_is_three_passes_and_what_is_repeated(recompute: bool) -> None:
    found = update_flops(SHAPE, [10, 4], 9, activation_checkpointing=recompute)
    body, head = counted(10) + counted(4), 9 * 50 * 8 * 2
    assert found.model == 3 * (body + head)
    assert found.repeated == head + (body if recompute else 0)


def test_frozen_weights_have_no_gradient_of_their_own() -> None:
    some = replace(SHAPE, frozen=900, head_frozen=True)
    all_trained, found = (update_flops(shape, [10, 4], 9, activation_checkpointing=True) for shape in (SHAPE, some))
    assert all_trained.model - found.model == 2 * 900 * 14 + 9 * 50 * 8 * 2
    assert found.repeated == all_trained.repeated


def test_shape_of_an_adapted_model() -> None:
    backbone = Tiny(hidden_size=64, layers=2, heads=4, kv_heads=2, intermediate_size=96)
    plain, adapted = Shape.of(backbone.meta()), Shape.of(attached(backbone.meta(), LoRA(rank=4, targets=("down_proj",))))
    assert (plain.frozen, plain.head_frozen) == (0, False)
    assert (adapted.frozen, adapted.head_frozen) == (plain.matrices, True)
    assert adapted.matrices - adapted.frozen == 2 * 4 * (96 + 64)


def test_shape_of_a_model() -> None:
    backbone = Tiny(family="olmo3", hidden_size=64, layers=4, heads=4, kv_heads=2, intermediate_size=96, sliding_window=5)
    shape = Shape.of(backbone.meta())
    attention = 64 * 64 * 2 + 64 * 32 * 2
    assert shape.matrices == 4 * (attention + 3 * 64 * 96)
    assert (shape.hidden, shape.query_width, shape.key_value_width) == (64, 64, 32)
    assert list(shape.windows) == [5, 5, 5, None]
