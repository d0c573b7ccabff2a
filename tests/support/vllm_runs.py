"""Runs that sample with vLLM, in the process, from servers or from doubles of them: what must hold of them."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta
from delta_lightning.data.arithmetic import Arithmetic
from delta_lightning.interfaces import Sampler
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.models.sharding import full
from delta_lightning.models.tiny import Tiny
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.types import SamplingParams
from support.odd import OddSum

TOLERANCE = 1e-4  # nats, float32


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of the run's `metrics.csv`."""
    [file] = folder.rglob("metrics.csv")
    with file.open() as lines:
        return list(csv.DictReader(lines))


def sampled_what_it_scored(folder: Path, steps: int) -> None:
    """At each of `steps` rollout steps, with weights that moved; and it was evaluated."""
    rows = metrics(folder)
    found = [row for row in rows if row.get("mismatch/max_abs_nats")]
    assert len(found) == steps
    for row in found:
        assert float(row["mismatch/max_abs_nats"]) < TOLERANCE
        assert float(row["sync/probe_max_nats"]) < TOLERANCE
    assert all(float(row["sync/moved_max_nats"]) > 100 * TOLERANCE for row in found[1:]), "or agreement shows nothing"
    assert [row for row in rows if row.get("held_out/accuracy")]


class Steps(pl.Callback):
    """What was logged of each rollout step: mismatch, the probe after the update before it, and how far the probe had moved."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = trainer.callback_metrics
        mismatch, probe = float(values["mismatch/max_abs_nats"]), float(values["sync/probe_max_nats"])
        self.rows.append((mismatch, probe, float(values.get("sync/moved_max_nats", 0.0))))


def module_with(sampler: Sampler, backbone: Tiny, sampling: SamplingParams) -> PolicyModule:
    """Eight prompts of four completions a step, two updates."""
    return PolicyModule(
        backbone=backbone, sampler=sampler, verifier=OddSum(), advantage=GroupStandardised(), credit=Delta(),
        loss=ClippedSurrogate(), weighting=Constant(), reduction=TokenMean(), correction=NoCorrection(),
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3), sampling=sampling,
        prompts_per_step=8, completions_per_prompt=4, updates_per_step=2, micro_batches=1,
    )  # fmt: skip


def train_on_two_ranks(
    module: PolicyModule, *, strategy: str = "ddp", steps: int = 2, prompts: int = 20
) -> tuple[dict[str, Tensor], list[tuple[float, float, float]]]:
    """Parameters after `steps` rollout steps, whole, and what `Steps` saw of each; closes the module. On each of two ranks."""
    seen = Steps()
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_epochs=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[seen],
    )  # fmt: skip
    try:
        trainer.fit(module, PromptData(source=Arithmetic(num_train=prompts, num_held_out=4)))
    finally:
        module.close()
    return {name: full(value).clone() for name, value in module.policy.named_parameters()}, seen.rows


def ranks_agree(ended: list[tuple[dict[str, Tensor], list[tuple[float, float, float]]]], steps: int = 2) -> None:
    """Two ranks sampled what they scored at every step, and hold the same parameters."""
    (first, rows), (second, _) = ended
    assert len(rows) == steps
    assert all(mismatch < TOLERANCE and probe < TOLERANCE for mismatch, probe, _ in rows), rows
    assert all(moved > 100 * TOLERANCE for _, _, moved in rows[1:]), rows
    assert all(torch.equal(value, second[name]) for name, value in first.items())
