from __future__ import annotations

import json
from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.models.architecture import meta_model, read_architecture

SHIPPED = Path(__file__).parents[2] / "configs" / "models"


def swiglu_transformer(
    *, hidden: int, layers: int, heads: int, kv: int, head_dim: int, intermediate: int, vocabulary: int, norms: int,
    embeddings: int = 2,
) -> int:  # fmt: skip
    """Parameters by hand: two embeddings unless tied, attention without biases, SwiGLU, a final norm; `norms` per layer."""
    attention = 2 * hidden * heads * head_dim + 2 * hidden * kv * head_dim
    return layers * (attention + 3 * hidden * intermediate + norms) + embeddings * vocabulary * hidden + hidden


QWEN = {"kv": 8, "head_dim": 128, "vocabulary": 151936}
COUNTS = {
    "Qwen3-0.6B-Base": swiglu_transformer(
        hidden=1024, layers=28, heads=16, intermediate=3072, norms=2 * 1024 + 2 * 128, embeddings=1, **QWEN
    ),
    "Qwen3-1.7B-Base": swiglu_transformer(
        hidden=2048, layers=28, heads=16, intermediate=6144, norms=2 * 2048 + 2 * 128, embeddings=1, **QWEN
    ),
    "Qwen3-8B-Base": swiglu_transformer(hidden=4096, layers=36, heads=32, intermediate=12288, norms=2 * 4096 + 2 * 128, **QWEN),
    "Qwen3-14B-Base": swiglu_transformer(
        hidden=5120, layers=40, heads=40, intermediate=17408, norms=2 * 5120 + 2 * 128, **QWEN
    ),
    "Olmo-3-1025-7B": swiglu_transformer(
        hidden=4096, layers=32, heads=32, kv=32, head_dim=128, intermediate=11008, vocabulary=100278, norms=4 * 4096
    ),
}


@pytest.mark.parametrize(("name", "billions"), [
    ("Qwen3-0.6B-Base", 0.60), ("Qwen3-1.7B-Base", 1.72), ("Qwen3-8B-Base", 8.19), ("Qwen3-14B-Base", 14.77),
    ("Olmo-3-1025-7B", 7.30),
])  # fmt: skip
def test_shipped_architectures_on_the_meta_device(name: str, billions: float) -> None:
    model = meta_model(SHIPPED / f"{name}.json")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == COUNTS[name]
    assert round(count / 1e9, 2) == billions
    small = name in ("Qwen3-0.6B-Base", "Qwen3-1.7B-Base")
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == small, "the small ones are tied"


def test_olmo3_has_three_sliding_layers_of_four_and_yarn_only_on_full_attention() -> None:
    config = meta_model(SHIPPED / "Olmo-3-1025-7B.json").config
    assert config.layer_types == ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] * 8
    assert config.sliding_window == 4096
    rope = config.rope_parameters
    assert (rope["full_attention"]["rope_type"], rope["full_attention"]["factor"]) == ("yarn", 8.0)
    assert rope["sliding_attention"]["rope_type"] == "default"
    assert rope["sliding_attention"]["rope_theta"] == rope["full_attention"]["rope_theta"] == 500000


def test_qwen3_rope() -> None:
    config = meta_model(SHIPPED / "Qwen3-8B-Base.json").config
    assert config.rope_parameters["rope_theta"] == 1000000
    assert config.max_position_embeddings == 32768


def test_every_shipped_file_is_tested() -> None:
    assert {file.stem for file in SHIPPED.glob("*.json")} == set(COUNTS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("{", "valid JSON"),
        ("[]", "model_type"),
        ('{"hidden_size": 8}', "model_type"),
        ('{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}', "causal"),
        ('{"model_type": "nothing_known"}', "nothing_known"),
    ],
)
def test_refusals(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "model.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=says):
        meta_model(file)


def test_a_folder_means_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    assert read_architecture(tmp_path) == {"model_type": "qwen3"}
