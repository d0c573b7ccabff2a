"""The export: what transformers loads is the trained model, to the bit."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.models.weights import weights_of
from delta_lightning.trainer.callbacks import HFExport, RolloutCheckpoint, hf_export
from support.lora import adapted
from support.models import tiny_model
from support.toy_run import UPDATES, ToyData, ToyModule, toy_trainer


def export(folder: Path, model: Any, *, rank: int = 0, name: str = "export", **options: Any) -> None:
    strategy = SimpleNamespace(reduce_boolean_decision=lambda done: done)
    trainer: Any = SimpleNamespace(world_size=1, is_global_zero=rank == 0, default_root_dir=folder, strategy=strategy)
    module: Any = SimpleNamespace(policy=model, tokenizer=byte_tokenizer())
    HFExport(folder=name, **options).on_train_end(trainer, module)


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_transformers_loads_and_samples(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    model = tiny_model(family, vocabulary=258)
    export(tmp_path, model)
    assert logging.is_progress_bar_enabled() == before
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert (tmp_path / "export" / "model.safetensors").is_file()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name)), name
    ids = tokenizer("47+385=", return_tensors="pt")
    assert loaded.generate(**ids, min_new_tokens=3, max_new_tokens=3, do_sample=True).shape == (1, 10)


def test_a_second_export_replaces_the_first_and_other_ranks_write_nothing(tmp_path: Path) -> None:
    export(tmp_path, tiny_model(vocabulary=258))
    (tmp_path / "export" / "stale").write_text("")
    export(tmp_path, tiny_model(vocabulary=258, seed=1))
    assert not (tmp_path / "export" / "stale").exists()
    export(tmp_path / "other", tiny_model(vocabulary=258), rank=1)
    assert not (tmp_path / "other").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_an_export_that_fails_costs_no_training_and_says_what_makes_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint is written before it."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ToyModule, "policy", None, raising=False)
    monkeypatch.setattr(hf_export, "exported_weights", lambda policy, alone: iter(()))
    monkeypatch.setattr(hf_export, "write_policy", full)
    checkpoint = tmp_path / "checkpoints" / "step-2.ckpt"
    parts = [RolloutCheckpoint(every=9), HFExport()]
    with pytest.raises(RunError, match=rf"No space left.* delta-lightning export --ckpt_path={checkpoint} --out=FOLDER"):
        toy_trainer(tmp_path, parts, steps=2).fit(ToyModule(), datamodule=ToyData())
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 2 * UPDATES


def test_refuses_an_empty_name() -> None:
    with pytest.raises(ConfigError):
        HFExport(folder="")


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_is_merged_into_what_samplers_are_given(tied: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = adapted(vocabulary=258, tie_word_embeddings=tied)
    export(tmp_path, model)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    given = dict(weights_of(model))
    assert given.keys() == {name for name, _ in loaded.named_parameters()}
    assert all(torch.equal(value, given[name]) for name, value in loaded.named_parameters())


def test_an_adapter_alone_is_loaded_by_its_library(tmp_path: Path) -> None:
    from peft import PeftModel

    model = adapted(vocabulary=258)
    export(tmp_path, model, weights="adapter")
    names = {path.name for path in (tmp_path / "export").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names and "model.safetensors" not in names
    loaded = PeftModel.from_pretrained(tiny_model(vocabulary=258), tmp_path / "export").get_base_model()
    [ours], [theirs] = sequence_logprobs(model, [[5, 9, 200]]), sequence_logprobs(loaded, [[5, 9, 200]])
    assert torch.equal(ours, theirs)


def test_an_adapter_that_is_not_there_is_refused_at_the_start() -> None:
    trainer: Any = SimpleNamespace()
    without: Any = SimpleNamespace(adapter=None)
    HFExport().setup(trainer, without, "fit")
    with pytest.raises(ConfigError, match=r"export.weights: wanted merged, got 'adapter'\. There is no adapter"):
        HFExport(weights="adapter").setup(trainer, without, "fit")
