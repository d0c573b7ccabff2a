"""Checkpoints between rollout steps, where they are small and a resume repeats nothing."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.trainer.callbacks.atomic import AtomicCheckpointIO, whole
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.spoiled import spoiled


class RolloutCheckpoint(Checkpoint):
    """Saves `checkpoints/step-{n}.ckpt` in the run folder after rollout step n, and always one when training ends.

    A checkpoint is written beside its place and renamed when complete, so a full disk or a kill leaves the one before it. Older
    ones are removed only after that.

    Args:
        every: rollout steps between checkpoints.
        keep: how many of this run's checkpoints stay; the newest ones. Those of other runs are never touched.
        folder: name, inside the run folder (`trainer.default_root_dir`).
        best: a metric, such as held_out/accuracy. The checkpoint of the rollout step with its best value so far stays too, as
            `best-step-{n}.ckpt`: the same bytes, linked where the file system has links. The first of equal values counts.
        best_is: the largest value or the smallest.
    """

    def __init__(
        self,
        every: int = 1,
        keep: int = 1,
        folder: str = "checkpoints",
        best: str | None = None,
        best_is: Literal["max", "min"] = "max",
    ) -> None:
        require(every >= 1, "RolloutCheckpoint.every", wanted="at least 1 rollout step", got=every, remedy="1 keeps most.")
        require(keep >= 1, "RolloutCheckpoint.keep", wanted="at least 1 checkpoint", got=keep, remedy="1 takes least space.")
        require(bool(folder.strip()), "RolloutCheckpoint.folder", wanted="a name", got=folder, remedy='"checkpoints" is usual.')
        self.every, self.keep, self.folder = every, keep, folder
        self.best, self.best_is = best, best_is
        self.saved: list[str] = []  # names in the folder, oldest first
        self.best_value: float | None = None
        self.best_of: list[str] = []  # of these the last is the best; others are there until it is
        self._evaluated = False
        self._of_updates: float | None = None  # the metric's value before the evaluation that ends a rollout step

    @property
    def latest(self) -> str | None:
        """Name of the newest checkpoint of this run."""
        return self.saved[-1] if self.saved else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before anything is read or written."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # another way of writing may be configured
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed between two files goes on."""
        self._evaluated = False
        self._tidy(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A stop inside this evaluation has the next process end the rollout step, which did not see its updates."""
        if self.best in trainer.callback_metrics and not self.best.startswith("held_out/"):
            self._of_updates = float(trainer.callback_metrics[self.best])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Held-out metrics are those of this rollout step."""
        self._evaluated = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A rollout step is over, its held-out evaluation too."""
        value, self._evaluated = self._measured(trainer), False
        better = value is not None and (self.best_value is None or self._beats(value, self.best_value))
        if better:
            self.best_value, self.best_of = value, [*self.best_of, position_name(trainer)]
        if better or finished_steps(trainer) % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last one, if it was not saved as a multiple of `every`."""
        if trainer.global_step and self.latest != position_name(trainer):
            self.save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed after its last checkpoint, and started again, may have left one too many."""
        self._tidy(trainer)

    def save(self, trainer: pl.Trainer) -> Path:
        """Save the present state under its position's name, then remove the oldest beyond `keep`. Collective.

        Raises:
            RunError: it could not be written, or weights are not finite; the checkpoint before it is still there.
        """
        self._refuse_spoiled(trainer)
        folder, name = Path(trainer.default_root_dir) / self.folder, position_name(trainer)
        before = [other for other in self.saved if other != name]
        self.saved = [*before, name]  # before saving: this list is part of the checkpoint
        trainer.save_checkpoint(folder / name)
        self._tidy(trainer)
        return folder / name

    def _refuse_spoiled(self, trainer: pl.Trainer) -> None:
        trained = ((name, value) for name, value in trainer.lightning_module.named_parameters() if value.requires_grad)
        if names := spoiled(trained, Ranks.current()):
            some = ", ".join(names[:3])
            remedy = f"{self.latest} is the last one; resume" if self.latest else "Begin again"
            raise RunError(
                f"{len(names)} trained tensors are not finite after optimiser step {trainer.global_step} ({some}), "
                f"so that no checkpoint is made. {remedy} with a lower learning rate."
            )

    def _tidy(self, trainer: pl.Trainer) -> None:
        """The best one under its own name, then no others than those that stay."""
        folder = Path(trainer.default_root_dir) / self.folder
        if self.best_of and trainer.is_global_zero:
            name = self.best_of[-1]
            target = folder / best_name(name)
            if (folder / name).exists() and not target.exists():
                with whole(target, "the best checkpoint") as partial:
                    _link(folder / name, partial)
            if target.exists():
                for old in self.best_of[:-1]:
                    trainer.strategy.remove_checkpoint(folder / best_name(old))
        self.best_of = self.best_of[-1:]
        for old in self.saved[: -self.keep]:
            trainer.strategy.remove_checkpoint(folder / old)
        self.saved = self.saved[-self.keep :]

    def _measured(self, trainer: pl.Trainer) -> float | None:
        """The metric's value of this rollout step; None if it is not measured in it, or no number. Raises `ConfigError`."""
        if self.best is None or (self.best.startswith("held_out/") and not self._evaluated):
            return None
        value = self._of_updates
        if self.best.startswith("held_out/") or not all(name.startswith("held_out/") for name in trainer.callback_metrics):
            self._refuse_unlogged(trainer)
            value = float(trainer.callback_metrics[self.best])
        return None if value is None or math.isnan(value) else value  # no later value would beat one that is no number

    def check_best(self, trainer: pl.Trainer) -> None:
        """Refuses a held-out metric that the evaluation before training did not log. Raises `ConfigError`."""
        if self.best is not None and self.best.startswith("held_out/") and trainer.callback_metrics:
            self._refuse_unlogged(trainer)

    def _refuse_unlogged(self, trainer: pl.Trainer) -> None:
        if self.best not in trainer.callback_metrics:
            raise ConfigError(
                "checkpoint.best", wanted="a metric that the run logs", got=str(self.best),
                remedy=f"It logs {', '.join(sorted(trainer.callback_metrics))}.",
            )  # fmt: skip

    def _beats(self, value: float, other: float) -> bool:
        return value > other if self.best_is == "max" else value < other

    def state_dict(self) -> dict[str, Any]:
        """Names of this run's checkpoints, and the best value with what it is a value of, and the last."""
        best = {"best_of": list(self.best_of), "best_value": self.best_value, "best_by": [self.best, self.best_is],
                "of_updates": self._of_updates}  # fmt: skip
        return {"saved": list(self.saved), **best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the checkpoints of the run that is resumed; the best one by another metric stays, and is not compared."""
        self.saved = list(state_dict["saved"])
        if state_dict.get("best_by") == [self.best, self.best_is]:
            self.best_of, self.best_value = list(state_dict["best_of"]), state_dict["best_value"]
            self._of_updates = state_dict.get("of_updates")


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


def best_name(name: str) -> str:
    """`best-step-3.ckpt` of `step-3.ckpt`."""
    return f"best-{name}"


def _link(source: Path, target: Path) -> None:
    """The same bytes under another name; copied where the file system has no links."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_file)
    else:
        _link_file(source, target)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
