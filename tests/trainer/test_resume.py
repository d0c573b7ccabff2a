"""A run that stops anywhere and goes on ends bitwise like one that never stopped; two ranks end where one does."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta
from delta_lightning.data.arithmetic import Arithmetic
from delta_lightning.filters import ZeroVariance
from delta_lightning.interfaces import StepView, TokenWeighting
from delta_lightning.losses import FIPO, KL, ClippedSurrogate, Constant, TokenMean
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import HFSampler
from delta_lightning.trainer.buffer import MicroBatch
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.types import Experience, Need, SamplingParams, Statistics, TokenScores
from support.odd import OddSum
from support.world import run_ranks

STEPS, UPDATES = 3, 2


def build(weighting: TokenWeighting, **parts: Any) -> tuple[PolicyModule, PromptData]:
    module = PolicyModule(
        backbone=Tiny(hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=32, seed=0), sampler=HFSampler(),
        verifier=OddSum(), advantage=GroupStandardised(), credit=Delta(), loss=ClippedSurrogate(), weighting=weighting,
        reduction=TokenMean(), correction=NoCorrection(), optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.5, 1.0, 5),
        sampling=SamplingParams(max_new_tokens=8),
        prompts_per_step=8, completions_per_prompt=4, updates_per_step=UPDATES, micro_batches=2, **parts,
    )  # fmt: skip
    return module, PromptData(source=Arithmetic(num_train=20, num_held_out=4))


def fit(
    folder: Path | None = None,
    checkpoint: Path | None = None,
    weighting: TokenWeighting | None = None,
    parts: dict[str, Any] | None = None,
    **changes: object,
) -> dict[str, torch.Tensor]:
    """Parameters after the run."""
    torch.set_num_threads(1)
    module, data = build(weighting or Constant(), **(parts or {}))
    saves = [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)] if folder else []
    options: dict[str, object] = {
        "accelerator": "cpu", "devices": 1, "max_epochs": STEPS, "accumulate_grad_batches": 2, "logger": False,
        "callbacks": saves,
        "enable_checkpointing": bool(folder), "enable_progress_bar": False, "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    } | changes  # fmt: skip
    trainer = pl.Trainer(**options)  # type: ignore[arg-type]
    try:
        trainer.fit(module, data, ckpt_path=checkpoint)
    finally:
        module.close()
    assert trainer.global_step == STEPS * UPDATES
    return {name: value.clone() for name, value in module.policy.state_dict().items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return fit(folder), folder


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("stop", range(1, STEPS * UPDATES))
def test_resume_is_bitwise(uninterrupted: tuple[dict[str, torch.Tensor], Path], stop: int) -> None:
    want, folder = uninterrupted
    got = fit(checkpoint=folder / f"step={stop}.ckpt")
    assert all(torch.equal(got[name], want[name]) for name in want)


DYNAMIC = {"filters": [ZeroVariance()], "refill_rounds": 2, "penalties": [KL(coefficient=0.1)]}


@pytest.fixture(scope="module")
def refilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Path]:
    """A run with dynamic sampling, a reference policy, and a weighting that takes statistics before each update."""
    folder = tmp_path_factory.mktemp("refilled")
    return fit(folder, weighting=FIPO(), parts=DYNAMIC), folder


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("stop", range(1, STEPS * UPDATES))
def test_resume_is_bitwise_after_refills(refilled: tuple[dict[str, torch.Tensor], Path], stop: int) -> None:
    """The prompts drawn, skipped ones too, and the reference that the run began with, not the policy of the checkpoint."""
    want, folder = refilled
    got = fit(checkpoint=folder / f"step={stop}.ckpt", weighting=FIPO(), parts=DYNAMIC)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_refills_move_the_data_on(refilled: tuple[dict[str, torch.Tensor], Path]) -> None:
    """The tests above would say nothing if no prompt had been drawn beyond those of the steps."""
    last = torch.load(refilled[1] / f"step={STEPS * UPDATES}.ckpt", weights_only=True)
    assert last["PromptData"]["drawn"] > STEPS * 8


def test_the_run_trains(uninterrupted: tuple[dict[str, torch.Tensor], Path]) -> None:
    from delta_lightning.models.backbone import LoadContext

    start = build(Constant())[0].backbone.load(LoadContext()).state_dict()
    assert all(not torch.equal(start[name], value) for name, value in uninterrupted[0].items() if "weight" in name)


def rank_parameters() -> dict[str, torch.Tensor]:
    return fit(devices=2, strategy="ddp")


def test_two_ranks_end_where_one_does(uninterrupted: tuple[dict[str, torch.Tensor], Path], tmp_path: Path) -> None:
    want = uninterrupted[0]
    for got in run_ranks(2, rank_parameters):
        for name, value in want.items():
            assert float((got[name] - value).abs().max() / value.abs().max()) < 1e-5, name


@dataclass(frozen=True, kw_only=True)
class DropLongRows(TokenWeighting):
    """Rows of more than four trained tokens leave the mask of their mini-batch."""

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.MINI_BATCH})

    def statistics(self, experience: Experience, view: StepView) -> Statistics:
        mask = view.batch.loss_mask_BT
        return Statistics(keep_BT=(mask.sum(1, keepdim=True) <= 4).expand(mask.shape))

    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> torch.Tensor:
        assert int(experience.batch.loss_mask_BT.sum(1).max()) <= 4, "the mask has not shrunk before the weights are taken"
        return experience.batch.loss_mask_BT.float()


def test_statistics_shrink_the_mask_and_the_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []

    def step(self: PolicyModule, batch: MicroBatch, batch_idx: int) -> torch.Tensor:
        loss = original(self, batch, batch_idx)
        buffer = self._buffer()
        update = batch.index // 2
        seen.append((float(buffer.mini_batch(update)[0].batch.loss_mask_BT.sum()), buffer.totals[update].tokens))
        return loss

    original = PolicyModule.training_step
    monkeypatch.setattr(PolicyModule, "training_step", step)
    fit(weighting=DropLongRows())
    assert len(seen) == STEPS * UPDATES * 2 and all(tokens == total for tokens, total in seen)


def launches() -> bool:
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    return not trainer.strategy.cluster_environment.creates_processes_externally  # type: ignore[attr-defined]


def test_rank_processes_launch_no_others() -> None:
    """Lightning would start a rank by running this command line again, the whole suite, and leave it behind."""
    assert run_ranks(2, launches) == [False, False]


class Generators(pl.Callback):
    """The global generators of torch, NumPy and Python as training begins, and as it ends."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begun = self._states()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ended = self._states()

    @staticmethod
    def _states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()


def test_a_run_draws_nothing_from_the_global_generators() -> None:
    """Checkpoints hold no state of generators: sampling, verifying, refills, credit, updates and evaluation need none."""
    watch = Generators()
    fit(parts=DYNAMIC, callbacks=[watch], check_val_every_n_epoch=2)
    assert watch.begun == watch.ended
