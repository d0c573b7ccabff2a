"""Checkpoints between rollout steps, where they are small and a resume repeats nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from delta_lightning.errors import require
from delta_lightning.trainer.callbacks.atomic import AtomicCheckpointIO


class RolloutCheckpoint(Checkpoint):
    """Saves `checkpoints/step-{n}.ckpt` in the run folder after rollout step n, and always one when training ends.

    A checkpoint is written beside its place and renamed when complete, so a full disk or a kill leaves the one before it. Older
    ones are removed only after that.

    Args:
        every: rollout steps between checkpoints.
        keep: how many of this run's checkpoints stay; the newest ones. Those of other runs are never touched.
        folder: name, inside the run folder (`trainer.default_root_dir`).
    """

    def __init__(self, every: int = 1, keep: int = 1, folder: str = "checkpoints") -> None:
        require(every >= 1, "RolloutCheckpoint.every", wanted="at least 1 rollout step", got=every, remedy="1 keeps most.")
        require(keep >= 1, "RolloutCheckpoint.keep", wanted="at least 1 checkpoint", got=keep, remedy="1 takes least space.")
        require(bool(folder.strip()), "RolloutCheckpoint.folder", wanted="a name", got=folder, remedy='"checkpoints" is usual.')
        self.every, self.keep, self.folder = every, keep, folder
        self.saved: list[str] = []  # names in the folder, oldest first

    @property
    def latest(self) -> str | None:
        """Name of the newest checkpoint of this run."""
        return self.saved[-1] if self.saved else None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A rollout step is over, its held-out evaluation too."""
        if finished_steps(trainer) % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last one, if it was not saved as a multiple of `every`."""
        if trainer.global_step and self.latest != position_name(trainer):
            self.save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed after its last checkpoint, and started again, may have left one too many."""
        self._remove_old(trainer)

    def save(self, trainer: pl.Trainer) -> Path:
        """Save the present state under its position's name, then remove the oldest beyond `keep`. Collective.

        Raises:
            RunError: it could not be written; the checkpoint before it is still there.
        """
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # another way of writing may be configured
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        folder, name = Path(trainer.default_root_dir) / self.folder, position_name(trainer)
        before = [other for other in self.saved if other != name]
        self.saved = [*before, name]  # before saving: this list is part of the checkpoint
        trainer.save_checkpoint(folder / name)
        self._remove_old(trainer)
        return folder / name

    def _remove_old(self, trainer: pl.Trainer) -> None:
        for old in self.saved[: -self.keep]:
            trainer.strategy.remove_checkpoint(Path(trainer.default_root_dir) / self.folder / old)
        self.saved = self.saved[-self.keep :]

    def state_dict(self) -> dict[str, Any]:
        """Names of this run's checkpoints."""
        return {"saved": list(self.saved)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the checkpoints of the run that is resumed."""
        self.saved = list(state_dict["saved"])


def finished_steps(trainer: pl.Trainer) -> int:
    """Rollout steps whose updates are all done."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def position_name(trainer: pl.Trainer) -> str:
    """`step-3.ckpt` after the third rollout step, `step-3-update-2.ckpt` after two more updates."""
    steps, per_step = finished_steps(trainer), updates_per_step(trainer)
    inside = trainer.global_step - steps * per_step
    return f"step-{steps}-update-{inside}.ckpt" if 0 < inside < per_step else f"step-{steps + (inside == per_step)}.ckpt"


def updates_per_step(trainer: pl.Trainer) -> int:
    """Optimiser steps in a rollout step."""
    module: Any = trainer.lightning_module
    return int(module.plan.cut.updates)
