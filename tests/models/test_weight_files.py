"""A model that every rank reads its rows of is the one that transformers loads as a whole, to the bit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from delta_lightning.errors import ConfigError
from delta_lightning.models import LoadContext, Pretrained
from delta_lightning.models.export import gathered_weights, write_model
from delta_lightning.models.sharding import Sharding
from delta_lightning.models.spreading import spread_files
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.models.weight_files import WeightFiles
from delta_lightning.trainer.ranks import Ranks
from support.models import tiny_model
from support.sharded import first_ratio, is_cut, probe, values
from support.world import run_ranks

pytestmark = pytest.mark.timeout(300)
# family, tied, bytes of a file. Three layers and a vocabulary of 17: ranks hold different numbers of rows.
KINDS = [("qwen3", True, 5_000), ("qwen3", False, 2 << 30), ("olmo3", True, 2 << 30), ("olmo3", False, 5_000)]


def save(folder: Path, family: str, tied: bool, shard_bytes: int) -> Path:
    """A model's folder, weights in bfloat16."""
    model = tiny_model(family, vocabulary=17, tie_word_embeddings=tied, num_hidden_layers=3, dtype=torch.bfloat16)
    model.generation_config.top_k = 7
    model.generation_config.do_sample = True
    write_model(folder, gathered_weights(model), model.config, model.generation_config, shard_bytes=shard_bytes)
    byte_tokenizer().save_pretrained(folder)
    return folder


def files_of(backbone: Pretrained) -> WeightFiles:
    found = backbone.weight_files(LoadContext())
    assert found is not None
    return found


def placed(folder: Path, **options: Any) -> Any:
    """The model as this rank's part of all ranks' work."""
    from torch.distributed.device_mesh import init_device_mesh

    found = files_of(Pretrained(path=str(folder), **options))
    model = spread_files(found, Sharding(mesh=init_device_mesh("cpu", (dist.get_world_size(),))), None)
    found.accept(model)
    return model


def one(folder: Path) -> dict[str, Any]:
    model = placed(folder)
    found = {
        "cut": is_cut(model), "held": sum(p.to_local().numel() for p in model.parameters()), "probe": probe(model),
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()}, "values": values(model),
        "tied": model.lm_head.weight is model.model.embed_tokens.weight, "training": model.training,
        "generation": model.generation_config.to_diff_dict(), "attention": model.config._attn_implementation,
        "ratio": first_ratio(model),
    }  # fmt: skip
    rows = {rank: [] for rank in range(2)}
    files = files_of(Pretrained(path=str(folder)))
    for name, part in files.rows({"model.norm.weight": slice(3, 9), "model.layers.1.mlp.up_proj.weight": slice(0, 2)}):
        rows[Ranks.current().rank].append((name, tuple(part.shape), part.dtype))
    return found | {"rows": rows[Ranks.current().rank]}


def world(folder: Path) -> list[dict[str, Any]]:
    return [one(folder / str(index)) for index in range(len(KINDS))]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[dict[str, Any]]]]:
    folder = tmp_path_factory.mktemp("models")
    for index, kind in enumerate(KINDS):
        save(folder / str(index), *kind)
    return folder, run_ranks(2, world, folder)


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_it_is_the_model_that_transformers_loads(found: tuple[Path, list[list[dict[str, Any]]]], index: int) -> None:
    folder, ranks = found
    whole = Pretrained(path=str(folder / str(index))).load(LoadContext())
    for mine in (rank[index] for rank in ranks):
        assert mine["cut"] and mine["tied"] == KINDS[index][1] and not mine["training"]
        assert list(mine["values"]) == [name for name, _ in whole.named_parameters()]
        assert all(torch.equal(mine["values"][name], value) for name, value in whole.named_parameters())
        assert all(value.dtype is torch.float32 for value in mine["values"].values())
        assert mine["buffers"].keys() == dict(whole.named_buffers()).keys()
        assert all(torch.equal(mine["buffers"][name], buffer) for name, buffer in whole.named_buffers())
        assert torch.equal(mine["probe"], probe(whole)) and mine["ratio"] == 0
        assert mine["generation"] == whole.generation_config.to_diff_dict() and mine["generation"]["top_k"] == 7
        assert mine["attention"] == whole.config._attn_implementation == "sdpa"
    held = [rank[index]["held"] for rank in ranks]
    assert sum(held) == sum(p.numel() for p in whole.parameters()) and held[0] > held[1] > 0.4 * sum(held)


def test_only_the_wanted_rows_are_read(found: tuple[Path, list[list[dict[str, Any]]]]) -> None:
    for rank in found[1]:
        assert sorted(rank[0]["rows"]) == [
            ("model.layers.1.mlp.up_proj.weight", (2, 32), torch.bfloat16), ("model.norm.weight", (6,), torch.bfloat16),
        ]  # fmt: skip


# Files that do not fit ---------------------------------------------------------------------------------------------------


def alone(folder: Path) -> dict[str, torch.Tensor]:
    """Parameters, read as the one rank that there is."""
    (found,) = run_ranks(1, read_alone, folder)
    return found


def read_alone(folder: Path) -> dict[str, torch.Tensor] | str:
    try:
        return values(placed(folder))
    except ConfigError as error:
        return str(error)


def test_a_tied_head_may_be_in_the_files_if_it_is_the_embedding(tmp_path: Path) -> None:
    file = save(tmp_path, "qwen3", True, 2 << 30) / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)  # files of old have it
    save_file(tensors, file, metadata={"format": "pt"})
    whole = dict(Pretrained(path=str(tmp_path)).load(LoadContext()).named_parameters())
    got = alone(tmp_path)
    assert got.keys() == whole.keys() and all(torch.equal(value, whole[name]) for name, value in got.items())
    tensors["lm_head.weight"][3, 3] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    assert "tie_word_embeddings" in str(alone(tmp_path))
    with pytest.raises(ConfigError, match="tie_word_embeddings"):
        Pretrained(path=str(tmp_path)).load(LoadContext())


@pytest.mark.parametrize("mistake", ["missing", "beyond"])
def test_other_names_are_refused_by_the_loader_that_could_convert_them(mistake: str, tmp_path: Path) -> None:
    backbone, file = Pretrained(path=str(save(tmp_path, "qwen3", True, 2 << 30))), tmp_path / "model.safetensors"
    tensors = load_file(file)
    if mistake == "missing":
        del tensors["model.layers.2.mlp.up_proj.weight"]
    else:
        tensors["model.layers.3.mlp.up_proj.weight"] = torch.ones(2, 2)
    save_file(tensors, file, metadata={"format": "pt"})
    assert backbone.weight_files(LoadContext()) is None
    with pytest.raises(ConfigError, match=r"model\.layers\.[23]\.mlp\.up_proj\.weight"):
        backbone.load(LoadContext())


def test_other_shapes_are_refused_by_name_before_anything_is_read(tmp_path: Path) -> None:
    backbone, config = Pretrained(path=str(save(tmp_path, "qwen3", True, 2 << 30))), tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 48}))
    with pytest.raises(ConfigError, match=r"mlp.*of shape \[\d+, \d+\], as its config\.json says, got \["):
        backbone.weight_files(LoadContext())


def test_a_model_of_the_hub_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache as the Hub's own library leaves it; without a network."""
    commit, cache = "a" * 40, tmp_path / "models--some--model"
    save(cache / "snapshots" / commit, "qwen3", True, 5_000)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    files = files_of(Pretrained(path="some/model")).files
    assert len(set(files.values())) > 2 and all(os.path.commonpath([file, cache]) == str(cache) for file in files.values())
    with pytest.raises(ConfigError, match="some/other"):
        Pretrained(path="some/other").weight_files(LoadContext())
