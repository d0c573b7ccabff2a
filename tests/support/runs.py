"""Whole runs of a tiny model under any strategy, and what they end with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta
from delta_lightning.data.arithmetic import Arithmetic
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.models.sharding import full
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import HFSampler
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.types import SamplingParams
from support.odd import OddSum

STEPS, UPDATES, MICRO = 3, 2, 2


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Parameters, whole; loss and gradient norm of the last update of each rollout step; whether all were sharded."""

    values: dict[str, torch.Tensor]
    losses: list[float]
    norms: list[float]
    cut: bool


class Watch(pl.Callback):
    """Notes what the last update of each rollout step was."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["update/loss"]))
        self.norms.append(float(trainer.callback_metrics["update/grad_norm"]))


def module_of(
    family: str = "qwen3", *, tied: bool = True, lr: float = 0.5, seed: int = 0, **parts: Any
) -> tuple[PolicyModule, PromptData]:
    """The policy and its prompts. Plain SGD: what it moves a parameter by is as exact as the gradient is."""
    backbone = Tiny(
        family=family, hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=32, tie_embeddings=tied,  # type: ignore[arg-type]
        sliding_window=6, seed=0,
    )  # fmt: skip
    options: dict[str, Any] = {
        "backbone": backbone, "sampler": HFSampler(), "verifier": OddSum(), "advantage": GroupStandardised(),
        "credit": Delta(), "loss": ClippedSurrogate(), "weighting": Constant(), "reduction": TokenMean(),
        "correction": NoCorrection(), "optimizer": lambda params: torch.optim.SGD(params, lr=lr),
        "sampling": SamplingParams(max_new_tokens=8), "prompts_per_step": 8, "completions_per_prompt": 4,
        "updates_per_step": UPDATES, "micro_batches": MICRO, "seed": seed,
    }  # fmt: skip
    return PolicyModule(**(options | parts)), PromptData(source=Arithmetic(num_train=20, num_held_out=4))


def run(
    strategy: Any = "auto",
    *,
    devices: int = 1,
    checkpoint: Path | None = None,
    folder: Path | None = None,
    callbacks: Sequence[pl.Callback] = (),
    validate_first: bool = False,
    family: str = "qwen3",
    tied: bool = True,
    **parts: Any,
) -> Ended:
    """Train for `STEPS` rollout steps, from a checkpoint if there is one."""
    torch.set_num_threads(1)
    module, data = module_of(family, tied=tied, **parts)
    watch = Watch()
    trainer = pl.Trainer(
        strategy=strategy, devices=devices, accelerator="cpu", max_epochs=STEPS, accumulate_grad_batches=MICRO, logger=False,
        callbacks=[watch, *callbacks], enable_checkpointing=bool(callbacks), enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=1, check_val_every_n_epoch=STEPS + 1,
        default_root_dir=folder,
    )  # fmt: skip
    try:
        if validate_first:
            trainer.validate(module, data, verbose=False)
        trainer.fit(module, data, ckpt_path=checkpoint)
    finally:
        module.close()
    assert trainer.global_step == STEPS * UPDATES
    parameters = dict(module.policy.named_parameters())
    cut = all(hasattr(parameter, "full_tensor") for parameter in parameters.values())
    values = {name: full(parameter).clone() for name, parameter in parameters.items()}
    return Ended(values=values, losses=watch.losses, norms=watch.norms, cut=cut)


def start(family: str = "qwen3", *, tied: bool = True) -> dict[str, torch.Tensor]:
    """Parameters before the first update."""
    from delta_lightning.models.backbone import LoadContext

    return dict(module_of(family, tied=tied)[0].backbone.load(LoadContext()).named_parameters())
