"""What is written is what transformers writes, and loads, however many files it takes."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from delta_lightning.models.export import gathered_weights, write_model
from support.models import tiny_model

LIMIT = 12_000  # bytes: several files, some tensors alone in theirs


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_bytes", [LIMIT, 2 << 30])
def test_transformers_loads_it_to_the_bit(family: str, tied: bool, shard_bytes: int, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = tiny_model(family, tie_word_embeddings=tied)
    write_model(tmp_path, gathered_weights(model), model.config, model.generation_config, shard_bytes=shard_bytes)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(model)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name)), name


def test_names_configs_and_rights_are_those_of_transformers(tmp_path: Path) -> None:
    model = tiny_model(dtype=torch.bfloat16)
    write_model(tmp_path / "ours", gathered_weights(model), model.config, model.generation_config)
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = ({path.name: path for path in (tmp_path / who).iterdir()} for who in ("ours", "theirs"))
    assert ours.keys() == theirs.keys() == {"config.json", "generation_config.json", "model.safetensors"}
    for name in ("config.json", "generation_config.json"):
        assert json.loads(ours[name].read_text()) == json.loads(theirs[name].read_text())
    headers = []
    for files in (ours, theirs):
        with safe_open(files["model.safetensors"], framework="pt") as opened:
            headers.append((opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}))  # noqa: SIM118
    assert headers[0][0] == headers[1][0] == {"format": "pt"}
    assert headers[0][1].keys() == headers[1][1].keys()
    assert all(torch.equal(tensor, headers[1][1][name]) for name, tensor in headers[0][1].items())
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(ours["model.safetensors"].stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_files_are_bounded_and_the_index_finds_every_tensor(tmp_path: Path) -> None:
    model = tiny_model(tie_word_embeddings=False)
    write_model(tmp_path, gathered_weights(model), model.config, shard_bytes=LIMIT)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    assert len(files) > 2 and index["metadata"]["total_size"] == sum(p.numel() * 4 for p in model.parameters())
    found = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            sizes = [opened.get_tensor(name).numel() * 4 for name in names]
        assert sum(sizes) <= LIMIT or len(sizes) == 1, "more than the limit, and not for one large tensor"
        found |= dict.fromkeys(names, file.name)
    assert index["weight_map"] == found


def test_holds_one_file_of_weights_at_a_time(tmp_path: Path) -> None:
    """The tensors given so far are let go as their files are written."""
    import weakref

    given: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def weights() -> object:
        nonlocal most
        for index in range(20):
            tensor = torch.full((1000,), float(index))
            given.append(weakref.ref(tensor))
            most = max(most, sum(one() is not None for one in given))
            yield f"t{index}", tensor

    write_model(tmp_path, weights(), tiny_model().config, shard_bytes=LIMIT)  # type: ignore[arg-type]
    assert most <= LIMIT // 4000 + 2, "three in the file, one kept by the loop, one being made"


def test_refuses_a_tensor_that_comes_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="given twice"):
        write_model(tmp_path, [("a", torch.zeros(2)), ("a", torch.ones(2))], tiny_model().config)
