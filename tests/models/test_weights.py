"""The weights that a policy stands for: merged one at a time, under the base's names, in the base's order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from delta_lightning.models.adapted import attached, initialise
from delta_lightning.models.lora import LoRA
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.models.weights import weight_shapes, weights_of
from delta_lightning.samplers.received import tied_embedding
from support.lora import adapted, merged
from support.models import tiny_model
from support.sharded import cut
from support.world import run_ranks

PROBE = [[2, 5, 9, 3, 7], [4, 4, 8]]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_a_plain_model_with_the_merged_weights_is_the_adapted_one(family: str, tied: bool) -> None:
    model = adapted(family, tie_word_embeddings=tied)
    plain = merged(model)
    for ours, theirs in zip(sequence_logprobs(model, PROBE), sequence_logprobs(plain, PROBE), strict=True):
        assert float((ours - theirs).abs().max()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merged_is_w_plus_s_b_a(dtype: torch.dtype) -> None:
    model = adapted(dtype=dtype)
    given = dict(weights_of(model))
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.gate_proj"):
        layer = model.get_submodule(name)
        parts = (layer.base_layer, layer.lora_B["default"], layer.lora_A["default"])
        w, b, a = (part.weight.detach().numpy().astype(np.float64) for part in parts)
        gap = np.abs(given[f"{name}.weight"].numpy() - (w + 8.0 * b @ a)).max()
        assert gap < (1e-12 if dtype is torch.float64 else 1e-6), name
        assert np.abs(b @ a).max() > 1e-3, "or nothing is shown"


def test_a_narrow_base_is_added_to_in_float32_and_rounded_once() -> None:
    model = adapted(dtype=torch.bfloat16)
    layer = model.model.layers[0].self_attn.o_proj
    wide = layer.base_layer.weight.float() + 8.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    given = dict(weights_of(model))["model.layers.0.self_attn.o_proj.weight"]
    assert given.dtype == torch.bfloat16 and torch.equal(given, wide.detach().bfloat16())


@pytest.mark.parametrize("tied", [True, False])
def test_names_shapes_and_order_are_those_of_the_base(tied: bool) -> None:
    plain, model = tiny_model(tie_word_embeddings=tied), adapted(tie_word_embeddings=tied)
    want = {name: tuple(value.shape) for name, value in plain.named_parameters()}
    for one in (plain, model):
        assert weight_shapes(one) == want and list(weight_shapes(one)) == list(want)
        assert [(name, tuple(value.shape)) for name, value in weights_of(one)] == list(want.items())
        assert not any(value.requires_grad for _, value in weights_of(one))
    assert tied_embedding(model) == tied_embedding(plain)


def test_nothing_is_changed_by_giving_weights_away() -> None:
    model = adapted()
    first = {name: value.clone() for name, value in weights_of(model)}
    for _, value in weights_of(model):
        if value.data_ptr() not in {parameter.data_ptr() for parameter in model.parameters()}:
            value.zero_()  # a merged tensor is the receiver's own
    assert all(torch.equal(value, first[name]) for name, value in weights_of(model))


def sharded() -> dict[str, Any]:
    torch.set_num_threads(1)
    model = initialise(cut(lambda: attached(tiny_model(), LoRA(rank=4))), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.01)
    return dict(weights_of(model))


def test_sharded_over_ranks_they_are_the_same() -> None:
    model = adapted(moved=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.01)
    want = dict(weights_of(model))
    for found in run_ranks(2, sharded):
        assert list(found) == list(want)
        assert all(torch.equal(value, want[name]) for name, value in found.items())
