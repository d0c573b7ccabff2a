from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from delta_lightning.errors import ConfigError
from delta_lightning.models import LoadContext, Tiny, WarmStart

FAMILIES = ("qwen3", "olmo3")
SMALL = {"hidden_size": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate_size": 24}


@pytest.mark.parametrize("family", FAMILIES)
def test_default_size(family: Any) -> None:
    model = Tiny(family=family).meta()
    assert 500_000 < sum(parameter.numel() for parameter in model.parameters()) < 2_000_000
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("family", FAMILIES)
def test_seed_decides_the_weights_and_the_global_generator_is_left_alone(family: Any) -> None:
    tiny = Tiny(family=family, **SMALL)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (tiny.load(LoadContext(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert not first.training
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    own = replace(tiny, seed=1).load(LoadContext(seed=2))
    assert torch.equal(own.lm_head.weight, first.lm_head.weight)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings(family: Any, tied: bool) -> None:
    model = Tiny(family=family, tie_embeddings=tied, **SMALL).load(LoadContext())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_keep_the_scale_of_activations(family: Any) -> None:
    model = Tiny(family=family).load(LoadContext())
    assert float(model.model.layers[0].mlp.up_proj.weight.detach().std()) == pytest.approx(128**-0.5, rel=0.02)


@pytest.mark.parametrize(("layers", "sliding"), [(1, "."), (3, "ss."), (4, "sss."), (6, "s.sss.")])
def test_olmo3_layers(layers: int, sliding: str) -> None:
    config = Tiny(family="olmo3", layers=layers).meta().config
    assert "".join("s" if kind == "sliding_attention" else "." for kind in config.layer_types) == sliding
    assert config.sliding_window == 32


def test_olmo3_window_hides_what_is_far_from_sliding_layers_only() -> None:
    """With only sliding layers before the last, a change 4 tokens back reaches the end only through full attention."""
    fields = SMALL | {"layers": 4}
    model = Tiny(family="olmo3", sliding_window=2, **fields).load(LoadContext())
    tokens = torch.arange(10, 20)[None]
    changed = tokens.clone()
    changed[0, 4] = 99
    with torch.no_grad():
        hidden = [model.model(ids, use_cache=False, output_hidden_states=True).hidden_states for ids in (tokens, changed)]
    difference = [float((a[0, -1] - b[0, -1]).abs().max()) for a, b in zip(*hidden, strict=True)]
    # Each sliding layer of window 2 looks back 1 token: 3 of them reach 3 tokens, the changed one is 5 away.
    assert difference[:4] == [0, 0, 0, 0] and difference[4] > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_export_loads_with_auto_classes(family: Any, tmp_path: Path) -> None:
    tiny = Tiny(family=family, **SMALL)
    model = tiny.load(LoadContext())
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([tiny.tokenizer().encode("1+2=")])
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=0, atol=0)
    assert loaded.generation_config.eos_token_id == tiny.tokenizer().eos_token_id


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 0},
        {"hidden_size": 130},
        {"hidden_size": 12},
        {"layers": 0},
        {"heads": 6},
        {"kv_heads": 3},
        {"sliding_window": 0},
        {"family": "llama"},
    ],
)
def test_range_checks(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Tiny(**fields)


def test_a_warm_start_needs_demonstrations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="worked solution"):
        Tiny(warm_start=WarmStart(cache_folder=str(tmp_path)), **SMALL).load(LoadContext())


def test_importing_models_and_building_parts_is_light() -> None:
    code = (
        "import sys; from delta_lightning.models import Tiny, Pretrained, WarmStart;"
        "Tiny(warm_start=WarmStart()).check(); Pretrained(path='Qwen/Qwen3-8B-Base').check();"
        "print([m for m in ('transformers', 'tokenizers', 'safetensors', 'lightning') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
