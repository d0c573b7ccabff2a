"""Rollout steps of a run as files: the rows, their advantages, and the weights that sampled and scored them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from delta_lightning.types import RolloutBatch

ROOT = Path(__file__).resolve().parents[2]


class Recorder(pl.Callback):
    """Saves `step-{n}.pt` before the first update on rollout step n, while the weights are still those that sampled it.

    Args:
        folder: an existing one. steps: the rollout steps to save.
    """

    def __init__(self, folder: str, steps: list[int]) -> None:
        self.folder, self.steps = Path(folder), steps

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        buffer = pl_module.data.loader.buffer
        if batch.index == 0 and buffer.step in self.steps:
            experience = buffer.experience
            state = {
                "batch": {item.name: getattr(experience.batch, item.name) for item in dataclasses.fields(experience.batch)},
                "advantages_B": experience.advantages,
                "micro": [[part.start, part.stop] for part in buffer.micro],
                "weights": pl_module.policy.state_dict(),
            }
            torch.save(state, self.folder / f"step-{buffer.step}.pt")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One rollout step: rows, advantages [B], rows of each micro-batch, weights."""

    batch: RolloutBatch
    advantages_B: Tensor
    micro: list[slice]
    weights: dict[str, Tensor]


def load(path: Path) -> Recorded:
    """What `Recorder` saved."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return Recorded(
        batch=RolloutBatch(**state["batch"]), advantages_B=state["advantages_B"],
        micro=[slice(start, stop) for start, stop in state["micro"]], weights=state["weights"],
    )  # fmt: skip


def record(folder: Path, *, family: str, seed: int, steps: list[int], config: str, more: Sequence[str] = ()) -> None:
    """One run of `config`, changed by `more`, in a process of its own, saved at `steps`; nothing if the files are there."""
    if all((folder / f"step-{step}.pt").is_file() for step in steps):
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "delta_lightning", "fit", "--config", config, f"--model.backbone.family={family}",
        f"--model.seed={seed}", f"--trainer.max_epochs={max(steps) + 1}", f"--trainer.check_val_every_n_epoch={max(steps) + 1}",
        f"--run_dir={folder / 'run'}", "--trainer.callbacks+=benchmarks.proxies.record.Recorder",
        f"--trainer.callbacks.folder={folder}", f"--trainer.callbacks.steps={steps}", *more,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{family}, seed {seed}: exit code {done.returncode}\n{done.stderr[-3000:]}")
