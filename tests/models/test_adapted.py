"""Laws of every adapter: it begins as its base, turns off, and is put in place part by part the same as whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from delta_lightning.models.adapted import adapter_of, adapter_off, attached, described, gathered_adapter, initialise
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.lora import LoRA
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.models.scorer import Scorer
from delta_lightning.models.sharding import full
from delta_lightning.testing.parts import concrete_parts
from delta_lightning.testing.worlds import make_batch
from support.lora import adapted, snapshot
from support.models import tiny_model
from support.sharded import cut, probe, values
from support.world import run_ranks

PROBE = [[2, 5, 9, 3, 7], [4, 4, 8]]
PARTS = concrete_parts(Adapter)


def logprobs(model: Any) -> torch.Tensor:
    return torch.cat(sequence_logprobs(model, PROBE))


@pytest.mark.parametrize("cls", PARTS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_it_begins_as_its_base_and_keeps_it(cls: type[Adapter], family: str) -> None:
    base = tiny_model(family)
    model = initialise(attached(tiny_model(family), cls()), seed=0)
    assert torch.equal(logprobs(model), logprobs(base))
    adapter = adapter_of(model)
    assert isinstance(adapter, cls)
    kept = [(adapter.base_name(name), value) for name, value in model.named_parameters() if adapter.base_name(name) is not None]
    assert [name for name, _ in kept] == [name for name, _ in base.named_parameters()]
    assert all(torch.equal(value, mine) for (_, mine), value in zip(kept, base.parameters(), strict=True))
    assert not any(value.requires_grad for _, value in kept)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def fail_inside(model: Any) -> None:
    with adapter_off(model):
        raise RuntimeError("halfway")


def test_off_is_the_base_to_the_bit_without_gradient_and_on_again_after_an_error() -> None:
    model, base = adapted(), tiny_model()
    on = logprobs(model)
    with adapter_off(model):
        assert torch.equal(logprobs(model), logprobs(base)) and not torch.is_grad_enabled()
    assert torch.equal(logprobs(model), on)
    with pytest.raises(RuntimeError, match="halfway"):
        fail_inside(model)
    assert torch.equal(logprobs(model), on) and float((on - logprobs(base)).abs().max()) > 1e-3
    assert torch.is_grad_enabled()
    with adapter_off(base):
        assert adapter_of(base) is None and described(base) == []


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_only_the_adapter_has_a_gradient_and_recomputing_does_not_change_it(family: str) -> None:
    """The first layer's input needs no gradient, since the embedding is frozen."""
    found = []
    for model in (adapted(family), recompute_layers(adapted(family))):
        rows = make_batch([4, 1, 6], rewards=[1, 0, 1], groups=[0, 0, 0])
        Scorer(model=model).score(rows, frozenset()).logprobs_BT.sum().backward()
        found.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
        assert found[-1].keys() == {name for name, value in model.named_parameters() if value.requires_grad}
        assert all(bool(value.any()) for value in found[-1].values())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_the_line_for_people_has_the_numbers() -> None:
    [line] = described(adapted(adapter=LoRA(rank=4, targets=("q_proj", "v_proj"))))
    # q: 4 (32 + 32), v: 4 (32 + 16); two layers
    assert line.startswith("adapter: LoRA of rank 4, scale 8 on q_proj, v_proj: 896 of 21,568 parameters are trained (4.15%)")


def trained_gradients(model: Any) -> dict[str, torch.Tensor]:
    rows = make_batch([4, 1, 6], rewards=[1, 0, 1], groups=[0, 0, 0])
    Scorer(model=model).score(rows, frozenset()).logprobs_BT.sum().backward()
    return {name: full(value.grad) for name, value in model.named_parameters() if value.requires_grad}


def sharded() -> dict[str, Any]:
    """On each rank: values drawn into shards, the model's log-probabilities with and without the adapter."""
    torch.set_num_threads(1)
    model = cut(lambda: attached(tiny_model(tie_word_embeddings=False), LoRA(rank=3)))
    initialise(model, seed=5)
    found = {
        "values": values(model),
        "begun": probe(model),
        "trained": [n for n, p in model.named_parameters() if p.requires_grad],
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.01)
    with adapter_off(model):
        found["off"] = probe(model)
    narrow = initialise(cut(lambda: attached(tiny_model(dtype=torch.bfloat16), LoRA(rank=3))), seed=5)
    return found | {"on": probe(model), "alone": dict(gathered_adapter(model)), "narrow": trained_gradients(narrow)}


def test_two_ranks_draw_the_values_of_one_each_its_part() -> None:
    one = initialise(attached(tiny_model(tie_word_embeddings=False), LoRA(rank=3)), seed=5)
    narrow = trained_gradients(initialise(attached(tiny_model(dtype=torch.bfloat16), LoRA(rank=3)), seed=5))
    want, base = snapshot(one), probe(tiny_model(tie_word_embeddings=False))
    for found in run_ranks(2, sharded):
        assert found["values"].keys() == want.keys()
        assert all(torch.equal(value, found["values"][name]) for name, value in want.items())
        assert found["trained"] == [name for name, value in one.named_parameters() if value.requires_grad]
        assert torch.equal(found["off"], found["begun"])
        assert float((found["off"] - base).abs().max()) < 1e-6 and float((found["on"] - base).abs().max()) > 1e-3
        for name, value in narrow.items():  # both ranks score the same rows, and their gradients are averaged
            assert value.dtype == torch.float32 and torch.equal(found["narrow"][name], value), name
        assert found["alone"].keys() == {name for name, _ in one.named_parameters() if ".lora_" in name}
