"""Runs under fsdp2 end where others do; they stop anywhere, go on bitwise, and export what they trained."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import StrategyRegistry

from delta_lightning.cli.resume import read_checkpoint
from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import TopKHiddenGradient
from delta_lightning.errors import ConfigError, RunError
from delta_lightning.filters import ZeroVariance
from delta_lightning.losses import FIPO, KL
from delta_lightning.models.probe import sequence_logprobs
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.callbacks import HFExport, RolloutCheckpoint
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof
from support.engines import ScriptedSession
from support.models import tiny_model
from support.runs import STEPS, UPDATES, Ended, run, start
from support.sampling import prompts
from support.sharded import cut
from support.world import run_ranks

pytestmark = pytest.mark.timeout(600)  # several runs in one world
LR = 0.5
# A gradient is exact to 1e-5 of its norm in float32, a norm is clipped to 1, and plain SGD moves a parameter by LR times it.
TOLERANCE = STEPS * UPDATES * LR * 1e-5

Kind = tuple[str, str, bool, bool, bool]  # strategy, family, tied, activation checkpointing, offload
QUICK: list[Kind] = [
    ("fsdp2", "qwen3", True, False, False), ("ddp", "qwen3", True, True, False), ("fsdp2", "olmo3", False, True, False),
]  # fmt: skip
GRID: list[Kind] = [
    (strategy, family, tied, recomputed, offload)
    for strategy, family, tied, recomputed, offload in product(
        ("ddp", "fsdp2"), ("qwen3", "olmo3"), (True, False), (True, False), (True, False)
    )
    if strategy == "fsdp2" or not offload
]


def ended(kind: Kind, devices: int) -> Ended:
    strategy, family, tied, recomputed, offload = kind
    chosen: Any = FSDP2Strategy(cpu_offload=True) if offload else strategy
    return run(chosen, devices=devices, family=family, tied=tied, lr=LR, activation_checkpointing=recomputed)


def everything(kinds: list[Kind]) -> dict[Kind, Ended]:
    return {kind: ended(kind, Ranks.current().size) for kind in kinds}


def agree(kinds: list[Kind], size: int) -> None:
    """Every kind of run on `size` ranks ends where a plain one on one device does."""
    alone = {(family, tied): run(family=family, tied=tied, lr=LR) for _, family, tied, _, _ in kinds}
    for found in run_ranks(size, everything, kinds):
        for kind, got in found.items():
            want = alone[kind[1], kind[2]]
            begun = {name: value.detach() for name, value in start(kind[1], tied=kind[2]).items()}
            assert got.cut == (kind[0] == "fsdp2")
            for name, value in want.values.items():
                assert float((got.values[name] - value).abs().max()) < TOLERANCE, (kind, name)
                assert float((value - begun[name]).abs().max()) > 20 * TOLERANCE, f"{name} hardly moved: nothing is shown"
            assert got.losses == pytest.approx(want.losses, abs=1e-5), kind
            assert got.norms == pytest.approx(want.norms, rel=1e-4), kind


def test_two_ranks_end_where_one_does() -> None:
    agree(QUICK, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_kind_of_run_ends_at_the_same_place(size: int) -> None:
    agree(GRID if size > 1 else [kind for kind in GRID if kind[0] == "fsdp2"], size)


# Checkpoints -------------------------------------------------------------------------------------------------------------

LAST = STEPS * UPDATES


def adam(folder: Path | None = None, **changes: Any) -> Ended:
    """A run with everything that has a state: AdamW, a schedule, a reference policy, refills, statistics of mini-batches.

    Its credit reads the head while hidden states are computed again.
    """
    saves = [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1), HFExport()] if folder else []
    options: dict[str, Any] = {
        "devices": Ranks.current().size, "folder": folder, "callbacks": saves, "tied": False,
        "optimizer": lambda params: torch.optim.AdamW(params, lr=1e-3),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 5),
        "penalties": [KL(coefficient=0.1)], "filters": [ZeroVariance()], "refill_rounds": 2, "weighting": FIPO(),
        "credit": Delta(proxy=TopKHiddenGradient(k=4)), "cache": HiddenCache(device_gib=0, host_gib=0),
    } | changes  # fmt: skip
    return run(**options)


def stopped_and_resumed(folder: Path) -> dict[str, Any]:
    """Runs to the end, and from checkpoints between rollout steps (4) and inside of one (3)."""
    parts, file = folder / "parts", folder / "file"
    one_file = FSDP2Strategy(distributed_checkpoint=False)
    return {
        "parts": adam(parts, strategy="fsdp2", validate_first=True),
        "parts, from 3": adam(strategy="fsdp2", checkpoint=parts / "step=3.ckpt"),
        "parts, from 4": adam(strategy="fsdp2", checkpoint=parts / "step=4.ckpt"),
        "file": adam(file, strategy=one_file),
        "file, from 3": adam(strategy=FSDP2Strategy(distributed_checkpoint=False), checkpoint=file / "step=3.ckpt"),
        "ddp, from the file": adam(strategy="ddp", checkpoint=file / "step=4.ckpt"),
        "proof": wrong_on_rank_1(),
        "full disk": {who: full_disk(folder / who, who) for who in ("a part", "the rest", "the folder")},
        "full disk at the end": full_export(folder / "no export"),
    }


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return folder, run_ranks(2, stopped_and_resumed, folder)


def same(one: Ended, other: Ended) -> bool:
    return all(torch.equal(value, other.values[name]) for name, value in one.values.items())


def close(one: Ended, other: Ended) -> bool:
    return all(float((value - other.values[name]).abs().max()) < 1e-5 for name, value in one.values.items())


@pytest.mark.parametrize("which", ["parts, from 3", "parts, from 4", "file", "file, from 3"])
def test_resume_is_bitwise(resumed: tuple[Path, list[dict[str, Any]]], which: str) -> None:
    for found in resumed[1]:
        assert same(found["parts"], found[which])


def test_a_checkpoint_is_a_folder_of_every_ranks_part(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    names = sorted(path.name for path in (resumed[0] / "parts" / f"step={LAST}.ckpt").iterdir())
    assert names == [".metadata", "__0_0.distcp", "__1_0.distcp", "manifest.json", "meta.pt"]
    assert not list((resumed[0] / "parts").glob(".*.partial"))
    assert (resumed[0] / "file" / f"step={LAST}.ckpt").is_file()


def test_other_strategies_and_numbers_of_ranks_go_on_from_it(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, (found, _) = resumed
    assert close(found["parts"], adam())
    assert close(found["parts"], found["ddp, from the file"])
    assert close(found["parts"], adam(checkpoint=folder / "file" / "step=4.ckpt"))
    (alone,) = run_ranks(1, from_parts, folder / "parts" / "step=4.ckpt", folder / "alone")
    assert alone.cut and close(found["parts"], alone)
    exported(folder / "alone", alone)


def from_parts(checkpoint: Path, folder: Path) -> Ended:
    return adam(folder, strategy="fsdp2", checkpoint=checkpoint)


@pytest.mark.parametrize("kind", ["parts", "file"])
def test_the_export_is_what_was_trained(resumed: tuple[Path, list[dict[str, Any]]], kind: str) -> None:
    folder, (found, _) = resumed
    exported(folder / kind, found[kind])


def exported(folder: Path, trained: Ended) -> None:
    """The folder's export is the model that was trained, to the bit."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "export")
    assert type(model).__name__ == "Qwen3ForCausalLM" == model.config.architectures[0]
    assert [name for name, _ in model.named_parameters()] == list(trained.values)
    assert all(torch.equal(parameter, trained.values[name]) for name, parameter in model.named_parameters())


# What it says --------------------------------------------------------------------------------------------------------------


def test_its_name_is_known_and_its_settings_are_checked() -> None:
    assert "fsdp2" in StrategyRegistry.available_strategies()
    with pytest.raises(ConfigError, match="timeout_minutes"):
        FSDP2Strategy(timeout_minutes=0)


class FullDisk(pl.Callback):
    """After the second rollout step one rank cannot write: rank 1 its part, or rank 0 the rest or the folder's place."""

    def __init__(self, patch: pytest.MonkeyPatch, what: str) -> None:
        self._patch, self._what = patch, what

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def full(*args: Any, **options: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        places = {
            "a part": (1, "torch.distributed.checkpoint.FileSystemWriter.write_data"), "the rest": (0, "torch.save"),
            "the folder": (0, "pathlib.Path.mkdir"),
        }  # fmt: skip
        rank, name = places[self._what]
        if trainer.current_epoch == 1 and trainer.global_rank == rank:
            self._patch.setattr(name, full)


def full_disk(folder: Path, what: str) -> dict[str, Any]:
    """What a run says whose disk is full when it saves the second checkpoint, and what it leaves behind."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RunError) as said:
        adam(strategy="fsdp2", folder=folder, callbacks=[RolloutCheckpoint(), FullDisk(patch, what)])
    saved = folder / "checkpoints"
    return {"said": str(said.value), "left": sorted(path.name for path in saved.iterdir()), "whole": read_checkpoint(
        str(saved / "step-1.ckpt")
    ).step}  # fmt: skip


@pytest.mark.parametrize("what", ["a part", "the rest", "the folder"])
def test_a_full_disk_ends_every_rank_and_leaves_the_checkpoint_before(
    resumed: tuple[Path, list[dict[str, Any]]], what: str
) -> None:
    first, second = (found["full disk"][what] for found in resumed[1])
    for one in (first, second):
        assert one["left"] == ["step-1.ckpt"] and one["whole"] == UPDATES
    assert "No space left on device" in first["said"] and "checkpoints" in first["said"]
    assert "every rank" in second["said"] or "No space left" in second["said"]


def full_export(folder: Path) -> dict[str, Any]:
    """What a run says whose disk is full when it exports, and what it leaves behind."""

    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(RunError) as said:
            adam(strategy="fsdp2", folder=folder, callbacks=[RolloutCheckpoint(), HFExport()])
    return {"said": str(said.value), "left": sorted(path.name for path in folder.iterdir())}


def test_an_export_that_rank_0_cannot_write_ends_every_rank(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = (found["full disk at the end"] for found in resumed[1])
    assert first["left"] == second["left"] == ["checkpoints"]
    assert "the export could not be written to" in first["said"] and "No space left on device" in first["said"]
    assert second["said"] == "the export could not be written; rank 0 says why"


class Wrong(ScriptedSession):
    """On rank 1 it serves something else than the model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return [values + Ranks.current().rank for values in sequence_logprobs(self.model, token_ids)]


def wrong_on_rank_1() -> str:
    """What the proof of weights says on this rank, of a sharded model."""
    model = cut(tiny_model)
    try:
        WeightProof(WeightCheck(), prompts([9]), None).probe(Wrong(model), 1, model, MetricBook())
    except RunError as error:
        return str(error)
    return "nothing was raised"


def test_a_sampler_with_other_weights_on_one_rank_ends_every_rank(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = (found["proof"] for found in resumed[1])
    assert first == "after the update to version 1 another rank's sampler has not the trainer's weights"
    assert "differ from the trainer's by 1 nats" in second
