"""Checkpoints of an adapter: what they hold, and what they are refused for; runs that stop go on bitwise and end alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.losses import KL
from delta_lightning.models.lora import LoRA
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.base_state import KEY, base_fingerprint, keep_trained_only, refuse_other_base, stamp
from delta_lightning.trainer.ranks import Ranks
from support.lora import adapted
from support.models import tiny_model
from support.runs import Ended, run, start
from support.world import run_ranks

ADAPTER = LoRA(rank=4)


def stored(model: Any) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {}
    stamp(checkpoint, model)
    return checkpoint


# What a state holds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_a_state_is_what_is_trained_and_loads_into_another(tied: bool) -> None:
    model, other = (keep_trained_only(adapted(moved=moved, tie_word_embeddings=tied)) for moved in (True, False))
    state = model.state_dict()
    assert state.keys() == {name for name, value in model.named_parameters() if value.requires_grad}
    other.load_state_dict(state)
    assert all(torch.equal(value, theirs) for value, theirs in zip(model.parameters(), other.parameters(), strict=True))
    whole = keep_trained_only(tiny_model())
    assert whole.state_dict().keys() == tiny_model().state_dict().keys(), "without an adapter nothing is left out"


@pytest.mark.parametrize("change", [lambda state: state.popitem(), lambda state: state.update(more=torch.zeros(1))])
def test_a_state_with_too_little_or_too_much_is_refused(change: Callable[[Any], Any]) -> None:
    model = keep_trained_only(adapted())
    state = model.state_dict()
    change(state)
    with pytest.raises(RunError, match=f"adapter has {len(state)} tensors, the policy's 28; the first that only one has is"):
        model.load_state_dict(state, strict=False)


# Fingerprints ------------------------------------------------------------------------------------------------------------


def test_one_bit_of_the_base_changes_the_fingerprint_and_training_does_not() -> None:
    model = adapted(moved=False)
    want = base_fingerprint(model)
    assert want == base_fingerprint(adapted()) != base_fingerprint(adapted(dtype=torch.float64))
    assert [*want] == [name for name, _ in tiny_model().named_parameters()]
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.base_layer.weight", "model.norm.weight"):
        other = adapted()
        other.get_parameter(name).data.view(-1)[7:8].view(torch.int32).bitwise_xor_(1)
        found = base_fingerprint(other)
        assert [key for key in want if want[key] != found[key]] == [name.replace(".base_layer", "")]


def test_another_base_or_adapter_is_refused_with_what_differs() -> None:
    given = stored(adapted())
    refuse_other_base(given, adapted())
    refuse_other_base({}, tiny_model())
    model = adapted()
    model.model.norm.weight.data[0] += 1
    with pytest.raises(ConfigError, match=r"model.backbone: .* 1 of 24 tensors differ: model.norm.weight\. Give the backbone"):
        refuse_other_base(given, model)
    with pytest.raises(ConfigError, match=r"model.adapter: wanted that of the checkpoint, LoRA\(rank=4, .*got LoRA\(rank=8"):
        refuse_other_base(given, adapted(adapter=LoRA(rank=8)))
    with pytest.raises(ConfigError, match=r"model.adapter: .*got none\. Resume with the same"):
        refuse_other_base(given, tiny_model())
    with pytest.raises(ConfigError, match=r"model.adapter: wanted that of the checkpoint, none, got LoRA\(rank=4"):
        refuse_other_base({}, adapted())


def test_a_stamp_is_made_of_plain_values(tmp_path: Path) -> None:
    """Lightning reads checkpoints with `weights_only=True`."""
    torch.save(stored(adapted()), tmp_path / "x")
    assert torch.load(tmp_path / "x", weights_only=True) == stored(adapted())
    assert stored(tiny_model()) == {}


# Whole runs --------------------------------------------------------------------------------------------------------------


def fit(folder: Path | None = None, **changes: Any) -> Ended:
    """AdamW, and a penalty that reads the base as reference."""
    saves = [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)] if folder else []
    options: dict[str, Any] = {
        "devices": Ranks.current().size, "folder": folder, "callbacks": saves, "adapter": ADAPTER,
        "optimizer": lambda params: torch.optim.AdamW(params, lr=1e-2), "penalties": [KL(coefficient=0.1)],
    } | changes  # fmt: skip
    return run(**options)


def same(one: Ended, other: Ended) -> bool:
    return all(torch.equal(value, other.values[name]) for name, value in one.values.items())


def close(one: Ended, other: Ended) -> bool:
    return all(float((value - other.values[name]).abs().max()) < 1e-5 for name, value in one.values.items())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, fit(folder)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("stop", [3, 4])
def test_one_device_resumes_bitwise(alone: tuple[Path, Ended], stop: int) -> None:
    assert same(alone[1], fit(checkpoint=alone[0] / f"step={stop}.ckpt"))


def test_the_adapter_is_trained_and_the_base_is_not(alone: tuple[Path, Ended]) -> None:
    base = start()
    moved = {name: value for name, value in alone[1].values.items() if ".lora_" in name}
    assert all(float(value.abs().max()) > 1e-3 for value in moved.values()) and len(moved) == 28
    for name, value in alone[1].values.items():
        if name not in moved:
            assert torch.equal(value, base[name.replace(".base_layer", "")]), name


def test_a_checkpoint_holds_the_adapter_alone(alone: tuple[Path, Ended]) -> None:
    checkpoint = torch.load(alone[0] / "step=4.ckpt", weights_only=True)
    assert len(checkpoint["state_dict"]) == 28 and all(".lora_" in name for name in checkpoint["state_dict"])
    assert len(checkpoint["optimizer_states"][0]["state"]) == 28
    assert checkpoint[KEY]["adapter"]["rank"] == 4


def test_a_changed_base_is_refused_before_it_is_trained_on(alone: tuple[Path, Ended]) -> None:
    path = alone[0] / "changed.ckpt"
    checkpoint = copy.deepcopy(torch.load(alone[0] / "step=4.ckpt", weights_only=True))
    checkpoint[KEY]["base"]["model.norm.weight"][2] += 1
    torch.save(checkpoint, path)
    with pytest.raises(ConfigError, match=r"1 of 24 tensors differ: model.norm.weight\."):
        fit(checkpoint=path)


def one_file() -> FSDP2Strategy:
    return FSDP2Strategy(distributed_checkpoint=False)


def stopped_and_resumed(folder: Path) -> dict[str, Ended]:
    """Runs of this world of ranks to the end, and from checkpoints inside a rollout step (3)."""
    parts, ddp = folder / "parts", folder / "ddp"
    return {
        "ddp": fit(ddp, strategy="ddp"),
        "ddp, from 3": fit(strategy="ddp", checkpoint=ddp / "step=3.ckpt"),
        "parts": fit(parts, strategy=FSDP2Strategy(accumulate="unsharded"), activation_checkpointing=True),
        "parts, from 3": fit(
            strategy=FSDP2Strategy(accumulate="unsharded"), activation_checkpointing=True, checkpoint=parts / "step=3.ckpt"
        ),
    }


def files_of_others(folder: Path) -> dict[str, Ended]:
    """Files read by the strategy that wrote them and by another, between rollout steps (4)."""
    file, ddp = folder / "file", folder / "ddp"
    return {
        "file": fit(file, strategy=one_file()),
        "file, from 4": fit(strategy=one_file(), checkpoint=file / "step=4.ckpt"),
        "ddp, from fsdp2's file": fit(strategy="ddp", checkpoint=file / "step=4.ckpt"),
        "file, from ddp's": fit(strategy=one_file(), checkpoint=ddp / "step=4.ckpt"),
    }


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Ended]]]:
    folder = tmp_path_factory.mktemp("two_ranks")
    return folder, run_ranks(2, stopped_and_resumed, folder)


def end_alike(want: Ended, found: dict[str, Ended]) -> None:
    for name, ended in found.items():
        assert close(want, ended), name
        assert ended.cut == (not name.startswith("ddp")), name
        assert ended.norms[-1] == pytest.approx(want.norms[-1], rel=1e-4), name


def test_two_ranks_end_where_one_device_does_and_resume_bitwise(
    alone: tuple[Path, Ended], two_ranks: tuple[Path, list[dict[str, Ended]]]
) -> None:
    for found in two_ranks[1]:
        end_alike(alone[1], found)
        assert same(found["ddp"], found["ddp, from 3"]) and same(found["parts"], found["parts, from 3"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_files_are_read_by_every_strategy(alone: tuple[Path, Ended], two_ranks: tuple[Path, list[dict[str, Ended]]]) -> None:
    for found in run_ranks(2, files_of_others, two_ranks[0]):
        end_alike(alone[1], found)
        assert same(found["file"], found["file, from 4"])


def test_parts_of_a_folder_hold_the_adapter_alone(two_ranks: tuple[Path, list[dict[str, Ended]]]) -> None:
    from torch.distributed.checkpoint import FileSystemReader

    names = FileSystemReader(two_ranks[0] / "parts" / "step=4.ckpt").read_metadata().state_dict_metadata
    held = [name for name in names if name.startswith("state_dict.")]
    assert len(held) == 28 and all(".lora_" in name for name in held)
