"""What passes keep, by the formulas of the layers written out."""

from __future__ import annotations

import pytest
import torch

from delta_lightning.planning.dry import DryModel, Pass
from support.planned import Sized

D, F, HEADS, GROUPS, W, V = 64, 160, 4, 2, 16, 3000


def dry(*, layers: int = 3, recompute: bool = False, family: str = "qwen3", budget: int = 1 << 20) -> DryModel:
    backbone = Sized(
        family=family, hidden_size=D, layers=layers, heads=HEADS, kv_heads=GROUPS, intermediate_size=F, vocabulary=V,
        context=4096, tie_embeddings=False,
    )  # fmt: skip
    return DryModel(backbone.meta(), dtype=torch.float32, activation_checkpointing=recompute, head_budget_bytes=budget)


def kept_of_layer(tokens: int) -> int:
    """Bytes that a Qwen3 layer keeps, float32, fused attention.

    Norms: input as float32, its inverse root, the scaled output (D, 1, D), before attention and before the MLP; the residual
    sums are those inputs. q and k are normed per head in the same way, from the product; then rotated. Attention: q, k, v,
    repeated over query heads, output and one number per query head. MLP: gate, SiLU, up, their product.
    """
    query, key = HEADS * W, GROUPS * W
    norms = 2 * (D + 1 + D)
    heads = 2 * (query + key) + HEADS + GROUPS  # before and inside the norms of q and k
    return 4 * tokens * (norms + heads + 3 * F + 3 * query)  # a lower bound: rotations and repeats come on top


@pytest.mark.parametrize("tokens", [64, 256])
def test_a_layer_keeps_at_least_what_its_formula_says_and_not_twice_that(tokens: int) -> None:
    one = Pass(rows=2, columns=tokens, trained=tokens)
    few, many = (dry(layers=layers).update(one, accumulating=True).kept for layers in (3, 7))
    per_layer = (many - few) / 4
    assert kept_of_layer(2 * tokens) <= per_layer <= 2 * kept_of_layer(2 * tokens)


def test_layers_that_are_left_out_count_as_those_that_are_run() -> None:
    one = Pass(rows=2, columns=40, trained=60)
    kept = [dry(layers=layers, family="olmo3").update(one, accumulating=True).kept for layers in (8, 12, 16)]
    assert kept[2] - kept[1] == kept[1] - kept[0] > 0


def test_recomputed_layers_keep_their_inputs_only() -> None:
    one = Pass(rows=2, columns=100, trained=100)
    few, many = (dry(layers=layers, recompute=True).update(one, accumulating=True).kept for layers in (3, 7))
    assert (many - few) / 4 == 2 * 100 * D * 4


def test_the_head_needs_chunks_and_not_tokens() -> None:
    """Beyond hidden states and their gradient, 2 N D, peak memory does not follow N."""
    model = dry(layers=1)
    peaks = [model.update(Pass(rows=1, columns=3000, trained=tokens), accumulating=True) for tokens in (1000, 2000)]
    growth = peaks[1].backward - peaks[0].backward
    assert growth <= 1000 * (2 * D * 4 + 64)


def test_all_pairs_of_packed_rows_cost_their_square() -> None:
    model = dry(layers=1)
    masked, plain = (model.score(Pass(rows=1, columns=512, trained=10, packed=packed)).forward for packed in (True, False))
    assert masked - plain >= 512 * 512


def test_gradients_that_are_made_count() -> None:
    model = dry(layers=20)  # more than the head needs for a moment
    one = Pass(rows=1, columns=4, trained=2)
    made, there = (model.update(one, accumulating=accumulating).backward for accumulating in (False, True))
    assert made > there
