"""Small runs with `one_step_off`, and what they trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import TruncatedImportance
from delta_lightning.credit import Delta
from delta_lightning.data.arithmetic import Arithmetic
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.models.sharding import full
from delta_lightning.models.tiny import Tiny
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.types import SamplingParams
from support.apart import ApartSampler, Log
from support.odd import OddSum

STEPS, UPDATES = 3, 2


class Watch(pl.Callback):
    """Logs each update, and keeps what each rollout step trained on and logged."""

    def __init__(self) -> None:
        self.versions: list[set[int]] = []
        self.weights: list[Tensor] = []  # of the correction, trained tokens
        self.first: list[dict[str, float]] = []  # metrics of the first optimiser step of each rollout step
        self.last: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        Log.add("train", trainer.current_epoch, batch_idx)
        if batch_idx == 0:
            experience = pl_module._buffer().experience
            self.versions.append(set(experience.batch.versions_B.tolist()))
            self.weights.append(experience.correction_BT[experience.batch.loss_mask_BT])

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if batch_idx == 2:  # what the first optimiser step logged, after its second micro-batch
            self.first.append(values)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.last.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def make(**changes: Any) -> tuple[PolicyModule, PromptData]:
    options: dict[str, Any] = {
        "backbone": Tiny(hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=32, seed=0),
        "sampler": ApartSampler(), "verifier": OddSum(), "advantage": GroupStandardised(), "credit": Delta(),
        "loss": ClippedSurrogate(), "weighting": Constant(), "reduction": TokenMean(), "correction": TruncatedImportance(),
        "optimizer": lambda params: torch.optim.AdamW(params, lr=1e-2), "sampling": SamplingParams(max_new_tokens=8),
        "prompts_per_step": 8, "completions_per_prompt": 4, "updates_per_step": UPDATES, "micro_batches": 2,
        "one_step_off": True,
    } | changes  # fmt: skip
    return PolicyModule(**options), PromptData(source=Arithmetic(num_train=20, num_held_out=4))


def trainer(callbacks: list[pl.Callback], **changes: Any) -> pl.Trainer:
    options: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "max_epochs": STEPS, "accumulate_grad_batches": 2, "logger": False,
        "callbacks": callbacks, "enable_checkpointing": any(isinstance(one, ModelCheckpoint) for one in callbacks),
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1,
        "inference_mode": False,
    } | changes  # fmt: skip
    return pl.Trainer(**options)


def fit(
    folder: Path | None = None, checkpoint: Path | None = None, parts: dict[str, Any] | None = None, **changes: Any
) -> tuple[dict[str, Tensor], Watch]:
    """Parameters after the run, and what it trained on; `folder` gets a checkpoint of every optimiser step."""
    torch.set_num_threads(1)
    module, data = make(**(parts or {}))
    watch = Watch()
    saves = [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)] if folder else []
    try:
        trainer([watch, *saves], **changes).fit(module, data, ckpt_path=checkpoint)
    finally:
        module.close()
    return {name: full(value).detach().clone() for name, value in module.policy.named_parameters()}, watch


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def close_to(want: dict[str, Tensor], got: dict[str, Tensor]) -> bool:
    """To what another order of sums makes of it."""
    return all(float((got[name] - value).abs().max() / value.abs().max()) < 1e-4 for name, value in want.items())
