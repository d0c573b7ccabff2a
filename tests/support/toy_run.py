"""A Lightning run with the hooks, counters and loader of the real one, but a model of four numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch

from delta_lightning.trainer.loader import RolloutLoader
from delta_lightning.trainer.progress import Progress
from delta_lightning.trainer.ranks import Ranks

UPDATES, MICRO = 2, 2


@dataclass
class ToyBuffer:
    """Micro-batches that depend on the weights that sampled them, as rollouts do."""

    step: int
    weights: torch.Tensor
    drawn: int = 0
    per_update: ClassVar[int] = MICRO

    def micro_batch(self, index: int) -> tuple[int, torch.Tensor]:
        generator = torch.Generator().manual_seed(100 * self.step + index)
        return index, self.weights + torch.randn(4, generator=generator)

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "weights": self.weights}


class ToyData(pl.LightningDataModule):
    loader: RolloutLoader

    def train_dataloader(self) -> RolloutLoader:
        return self.loader

    def val_dataloader(self) -> list[int]:
        return [0, 1, 2]

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state(Ranks())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.step, self.loader.position = state["step"], state["position"]
        if state["buffers"] is not None:
            self.loader.buffer = ToyBuffer(**state["buffers"][0])  # type: ignore[assignment]


class ToyModule(pl.LightningModule):
    """`at` is called with ("sample" | "train" | "validate", rollout step, index) wherever a signal may fall."""

    def __init__(self, at: Callable[[str, int, int], None] = lambda *_: None) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(4))
        self.progress, self.at = Progress(), at
        self.plan = SimpleNamespace(cut=SimpleNamespace(updates=UPDATES, micro=MICRO, num_groups=2), completions=4, seed=0)
        self.sampler = SimpleNamespace(ranks_sample_together=lambda: False)
        self.sampled: list[int] = []

    def setup(self, stage: str) -> None:
        self.trainer.datamodule.loader = RolloutLoader(self.make, updates=UPDATES, micro=MICRO)  # type: ignore[attr-defined]

    def make(self, step: int, drawn: int) -> Any:
        for index in range(3):
            self.at("sample", step, index)
            self.progress("sampling", index, 3)
        self.sampled.append(step)
        return ToyBuffer(step, self.weights.detach().clone())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: tuple[int, torch.Tensor], batch_idx: int) -> None:
        self.progress("updating", batch[0], UPDATES * MICRO)

    def training_step(self, batch: tuple[int, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.at("train", self.current_epoch, batch[0])
        self.progress("updating", batch[0], UPDATES * MICRO)
        return (self.weights - batch[1]).square().sum()

    def on_train_batch_end(self, outputs: Any, batch: tuple[int, torch.Tensor], batch_idx: int) -> None:
        if (batch[0] + 1) % MICRO == 0:
            self.log_dict({"reward/mean": 0.1 * self.current_epoch, "rollout/completion_tokens": 10.0, "seconds/sample": 0.5})

    def validation_step(self, batch: int, batch_idx: int) -> None:
        self.at("validate", self.current_epoch, batch_idx)
        self.progress("sampling", batch_idx, 3)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"held_out/accuracy": float(self.weights.detach().mean())})


def toy_trainer(folder: Path, callbacks: list[pl.Callback], *, steps: int = 4, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "default_root_dir": folder, "callbacks": callbacks, "max_epochs": steps, "accumulate_grad_batches": MICRO,
            "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
            "num_sanity_val_steps": 0, "check_val_every_n_epoch": 2, "log_every_n_steps": 1,
        }
        | options
    )  # fmt: skip
