"""LoRA: the formula against NumPy, values that do not depend on ranks, refusals, and what peft makes of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.models.adapted import attached, gathered_adapter, own_parameters
from delta_lightning.models.lora import ALL_LINEAR, LoRA
from delta_lightning.models.probe import sequence_logprobs
from support.lora import adapted
from support.models import tiny_model

PROBE = [[2, 5, 9, 3, 7], [4, 4, 8]]


@pytest.mark.parametrize(("options", "scale"), [({}, 32 / 4), ({"alpha": 6.0}, 1.5), ({"rank_stabilised": True}, 16.0)])
def test_a_layer_gives_w_x_plus_s_b_a_x(options: dict[str, Any], scale: float) -> None:
    adapter = LoRA(rank=4, **options)
    model = adapted(adapter=adapter, dtype=torch.float64)
    layer = model.model.layers[1].mlp.down_proj
    x = torch.randn(3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w, a, b = (m.weight.detach().numpy() for m in (layer.base_layer, layer.lora_A["default"], layer.lora_B["default"]))
    want = x.numpy() @ (w + scale * b @ a).T
    assert adapter.scale == scale
    assert np.abs(layer(x).detach().numpy() - want).max() < 1e-12
    change = adapter.change(model, "model.layers.1.mlp.down_proj.base_layer.weight")
    assert change is not None and np.abs(change.detach().numpy() - scale * b @ a).max() < 1e-12
    assert adapter.change(model, "model.norm.weight") is None


def test_values_depend_on_name_and_seed_alone() -> None:
    adapter, state = LoRA(rank=4), torch.random.get_rng_state()
    one, again, other = (
        adapted(moved=False, adapter=adapter),
        adapted(moved=False, adapter=adapter),
        adapted(moved=False, seed=1),
    )
    few = LoRA(rank=4, targets=("v_proj",))
    name = "model.layers.0.self_attn.v_proj.lora_A.default.weight"
    first = dict(own_parameters(one))
    assert all(torch.equal(value, first[key]) for key, value in own_parameters(again))
    assert not torch.equal(dict(own_parameters(other))[name], first[name])
    assert torch.equal(few.draw(name, (4, 32), 0), first[name]), "whatever else is adapted"
    tiny_model()  # seeds the global generator
    state = torch.random.get_rng_state()
    attached(tiny_model(), adapter)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator was not used"


def test_a_is_uniform_with_the_stated_bound_and_b_is_zero() -> None:
    adapter = LoRA()
    a = adapter.draw("x.lora_A.default.weight", (64, 400), 0)
    assert float(a.abs().max()) <= 1 / 20 and float(a.std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    assert abs(float(a.mean())) < 1e-3
    assert not adapter.draw("x.lora_B.default.weight", (400, 64), 0).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_matrices_are_float32_or_wider_and_all_that_is_trained(dtype: torch.dtype) -> None:
    model = adapted(dtype=dtype)
    own = dict(own_parameters(model))
    assert {value.dtype for value in own.values()} == {torch.promote_types(dtype, torch.float32)}
    assert {name for name, value in model.named_parameters() if value.requires_grad} == own.keys()
    assert len(own) == 2 * len(ALL_LINEAR) * 2
    assert all(value.dtype == dtype for name, value in model.named_parameters() if name not in own)
    assert not any(module.training for module in model.modules())


def test_targets() -> None:
    model = adapted(adapter=LoRA(rank=2, targets=("v_proj", "up_proj")))
    assert {name.split(".")[-4] for name, _ in own_parameters(model)} == {"v_proj", "up_proj"}
    assert len(list(own_parameters(model))) == 8
    with torch.device("meta"):
        assert len(LoRA().targets_in(tiny_model())) == 14


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "LoRA.rank: wanted at least 1, got 0"),
        ({"alpha": 0.0}, "LoRA.alpha: wanted more than 0, got 0.0"),
        ({"targets": ()}, "LoRA.targets: wanted at least 1 layer"),
        ({"targets": ("q_proj", "lm_head")}, "LoRA.targets: wanted linear layers inside decoder layers, got 'lm_head'"),
        ({"targets": ("embed_tokens",)}, "got 'embed_tokens'. Leave embed_tokens out: its weight is read directly"),
    ],
)
def test_refusals_when_the_config_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoRA(**options)


@pytest.mark.parametrize("name", ["q_prj", "self_attn", "q_norm"])
def test_targets_that_are_not_there_or_not_linear(name: str) -> None:
    with pytest.raises(ConfigError, match=f"LoRA.targets: wanted linear layers of Qwen3ForCausalLM: down_proj, .*got {name}"):
        attached(tiny_model(), LoRA(targets=("v_proj", name)))


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LoRA().check()[0].startswith("adapter: peft 0.")
    monkeypatch.setattr("delta_lightning.models.lora.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'delta-lightning\[lora\]'"):
        LoRA().check()


def test_off_turns_every_layers_switch_and_restores_it() -> None:
    """The switch is a private name of peft's."""
    model = adapted()
    layers = [model.get_submodule(path) for path in LoRA().targets_in(model)]
    assert len(layers) == 14 and not any(layer.disable_adapters for layer in layers)
    with LoRA().off(model):
        assert all(layer.disable_adapters for layer in layers)
        with LoRA().off(model):
            pass
        assert all(layer.disable_adapters for layer in layers), "nested"
    assert not any(layer.disable_adapters for layer in layers)
    assert all(value.requires_grad for _, value in own_parameters(model))


@pytest.mark.parametrize("options", [{}, {"rank_stabilised": True, "alpha": 3.0}, {"targets": ("q_proj", "down_proj")}])
@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_peft_reads_what_is_written(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    from peft import PeftModel

    model = adapted(family, adapter=LoRA(rank=4, **options))
    LoRA(rank=4, **options).write(tmp_path, dict(gathered_adapter(model)), base="org/base")
    loaded = PeftModel.from_pretrained(tiny_model(family), tmp_path)
    want, base = sequence_logprobs(model, PROBE), sequence_logprobs(tiny_model(family), PROBE)
    for ours, theirs, before in zip(want, sequence_logprobs(loaded.get_base_model(), PROBE), base, strict=True):
        assert torch.equal(ours, theirs)
        assert float((ours - before).abs().max()) > 1e-3
    assert '"org/base"' in (tmp_path / "adapter_config.json").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
