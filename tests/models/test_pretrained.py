from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.models import LoadContext, Pretrained, Tiny
from delta_lightning.models.pretrained import refuse_other_heads
from support.models import tiny_model

SMALL = Tiny(hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=24, tie_embeddings=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    SMALL.load(LoadContext(seed=3)).to(torch.bfloat16).save_pretrained(folder)
    SMALL.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_loads_float32_masters_of_bfloat16_weights(folder: Path) -> None:
    backbone = Pretrained(path=str(folder))
    backbone.check()
    seen: list[tuple[str, int, int]] = []
    model = backbone.load(LoadContext(tick=lambda *step: seen.append(step)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32} and not model.training
    reference = SMALL.load(LoadContext(seed=3)).to(torch.bfloat16).float()
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert model.config._attn_implementation == "sdpa"
    assert backbone.tokenizer().encode("a", add_special_tokens=False) == [99]
    assert [step[1:] for step in seen] == [(0, 1), (1, 1)]


def test_dtype_and_attention_are_obeyed(folder: Path) -> None:
    model = Pretrained(path=str(folder), dtype="bfloat16", attn_implementation="eager").load(LoadContext())
    assert model.lm_head.weight.dtype == torch.bfloat16 and model.config._attn_implementation == "eager"


def test_meta_from_folder_or_architecture(folder: Path) -> None:
    architecture = Path(__file__).parents[2] / "configs" / "models" / "Qwen3-8B-Base.json"
    assert Pretrained(path=str(folder)).meta().config.hidden_size == 16
    assert Pretrained(path="Qwen/Qwen3-8B-Base", architecture=str(architecture)).meta().config.hidden_size == 4096
    with pytest.raises(ConfigError, match="architecture"):
        Pretrained(path="Qwen/Qwen3-8B-Base").meta()
    with pytest.raises(ConfigError, match=r"no such file\. Check the path, which begins in the working folder, /"):
        Pretrained(path="Qwen/Qwen3-8B-Base", architecture="nowhere.json").check()


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def shard(folder: Path, *names: str) -> None:
    index = {"metadata": {}, "weight_map": {f"w{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no such file"),
    "config is not JSON": (lambda folder: (folder / "config.json").write_text("{"), "valid JSON"),
    "another kind of model": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}'),
        "causal",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"wanted weights.*config\.json"),
    "weights cut short": (lambda folder: cut(folder / "model.safetensors", -10), "cut short"),
    "header cut short": (lambda folder: cut(folder / "model.safetensors", 100), "header"),
    "empty weights": (lambda folder: cut(folder / "model.safetensors", 0), "header"),
    "a pointer instead of weights": (
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "header",
    ),
    "a shard is missing": (
        lambda folder: shard(folder, "model.safetensors", "b.safetensors"),
        r"1 of 2 missing, first b\.safe",
    ),
    "the index is broken": (lambda folder: (folder / "model.safetensors.index.json").write_text("[]"), "a safetensors index"),
    "no tokenizer": (
        lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")] and None,
        "a tokenizer",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_folders_are_refused(folder: Path, mistake: str) -> None:
    spoil, says = MISTAKES[mistake]
    spoil(folder)
    with pytest.raises(ConfigError, match=says):
        Pretrained(path=str(folder)).check()


def test_whole_shards_pass(folder: Path) -> None:
    shard(folder, "model.safetensors")
    Pretrained(path=str(folder)).check()


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./nowhere", "a/b/c", "...", "two words"])
def test_names_that_cannot_be_on_the_hub_are_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        Pretrained(path=path).check()


def test_a_file_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="a file"):
        Pretrained(path=str(folder / "model.safetensors")).check()


def test_empty_path_is_refused() -> None:
    with pytest.raises(ConfigError):
        Pretrained(path=" ")


def test_a_hub_name_without_network_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    backbone = Pretrained(path="nobody-at-all/no-such-model")
    backbone.check()
    for load in (backbone.tokenizer, lambda: backbone.load(LoadContext())):
        with pytest.raises(ConfigError, match="network") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_a_tokenizer_without_end_of_sequence_is_refused(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in values.items() if name != "eos_token"}))
    with pytest.raises(ConfigError, match="end-of-sequence"):
        Pretrained(path=str(folder)).tokenizer()


@pytest.mark.parametrize("family", ["Granite", "Gemma2", "Phi"])
def test_heads_that_are_more_than_a_product_are_refused(family: str) -> None:
    """Their scale, soft cap or bias would be lost in sampling and scoring alike, and no metric would show it."""
    import transformers

    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"Granite": {"logits_scaling": 4.0}, "Gemma2": {"head_dim": 8, "num_key_value_heads": 2}, "Phi": {}}[family]
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**shape, **special)).eval()
    if family == "Phi":
        model.lm_head.bias.data.normal_()
    for weight in model.parameters():
        weight.data.mul_(3)
    with pytest.raises(ConfigError, match=r"lm_head\.weight @ hidden"):
        refuse_other_heads(model, "somewhere")


def test_heads_of_the_supported_families_pass() -> None:
    for family in ("qwen3", "olmo3"):
        for tied in (True, False):
            refuse_other_heads(tiny_model(family, tie_word_embeddings=tied), "somewhere")
