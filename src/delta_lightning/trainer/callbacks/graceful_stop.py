"""Ctrl-C and SIGTERM end a run with a checkpoint and nothing lost but the rollouts being sampled."""

from __future__ import annotations

import copy
import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from delta_lightning.trainer.callbacks.rollout_checkpoint import RolloutCheckpoint

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(SystemExit):
    """Ends the run, cleanly: exit code 130 after Ctrl-C, 143 after SIGTERM (128 + the signal, as shells report it)."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class GracefulStop(pl.Callback):
    """Stops on the first Ctrl-C or SIGTERM at the next point that can be resumed exactly; a second one ends at once.

    While completions are sampled, verified or scored, the step is given up at once; the checkpoint holds the state before it.
    During updates the optimiser step is finished first, never cut in the middle of its micro-batches; the checkpoint then holds
    the rest of the rollout step. On several ranks the stop waits for the end of the optimiser step in both cases, so that no
    rank waits for another. Before training begins there is nothing to save and the run ends at once.

    The exit code is 130 after Ctrl-C and 143 after SIGTERM.
    """

    def __init__(self) -> None:
        self._requested: int | None = None
        self._originals: dict[int, Any] = {}
        self._listening = self._training = self._updating = False
        self._boundary: dict[str, Any] = {}  # Lightning's loop counters at the last rollout boundary
        self._override: dict[str, Any] | None = None  # those that the checkpoint gets in place of the present ones

    # Signals ---------------------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen from before the model loads."""
        self._requested, self._override, self._training, self._updating = None, None, False, False
        self._listen()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen in place of Lightning, whose own handler of SIGTERM would cut an optimiser step in two."""
        self._listen()
        self._training, self._boundary = True, _loops(trainer)
        module: Any = pl_module
        module.progress.guard = lambda: self._interrupt(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is left writes checkpoint, export and report: a first signal no longer matters, a second one still ends it."""
        module: Any = pl_module
        module.progress.guard = lambda: None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop listening."""
        self._forget(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop listening."""
        self._forget(pl_module)

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._listening = True
        for signum in NAMES:
            self._originals.setdefault(signum, signal.getsignal(signum))
            signal.signal(signum, self._handle)

    def _forget(self, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        module.progress.guard = lambda: None
        if self._listening:
            self._listening = self._training = False
            for signum, original in self._originals.items():
                signal.signal(signum, original or signal.SIG_DFL)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Runs in the main thread between two instructions: it notes the wish, or ends the run if there is nothing to lose."""
        if not self._listening:  # Lightning puts back the handlers that it found when the run began, after a failure too
            signal.signal(signum, self._originals[signum] or signal.SIG_DFL)
            signal.raise_signal(signum)
            return
        for each in NAMES:
            signal.signal(each, signal.SIG_DFL)  # a second signal ends the process at once, even inside a long call
        name = NAMES[signal.Signals(signum)]
        if not self._training:
            _say(f"\n{name}: stopped. No training was under way, so nothing was lost.")
            raise Stopped(signum)
        self._requested = signum
        _say(f"\n{name}: stopping with a checkpoint as soon as the step allows. Once more ends at once, without one.")

    # Where to stop ---------------------------------------------------------------------------------------------------

    def _interrupt(self, trainer: pl.Trainer) -> None:
        """Called at every tick of the progress: stop if nothing but unfinished rollouts would be lost."""
        if self._requested is not None and not self._updating and trainer.world_size == 1:
            self._override = _after_evaluation(trainer) if trainer.validating else self._boundary
            self._stop(trainer, self._requested)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """From here to the end of the optimiser step the run is not interrupted."""
        self._updating = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimiser step inside a rollout step: stop if any rank was asked to."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._updating = False
        if not trainer.is_last_batch:
            self._stop_together(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A rollout boundary."""
        self._boundary = _loops(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Between two rollout steps, when every callback has seen the end of the one before: stop if any rank was asked to."""
        self._override = self._boundary
        self._stop_together(trainer)
        self._override = None

    def _stop_together(self, trainer: pl.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._requested is not None, all=False):
            self._stop(trainer, self._requested or signal.SIGTERM)

    def _stop(self, trainer: pl.Trainer, signum: int) -> None:
        found = [one for one in trainer.checkpoint_callbacks if isinstance(one, RolloutCheckpoint)]
        path = (found[0] if found else RolloutCheckpoint()).save(trainer)
        if trainer.is_global_zero:
            _say(f"Stopped; checkpoint: {path}\nTo go on: {resume_command(Path(trainer.default_root_dir), path)}")
        raise Stopped(signum)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A rollout step that was given up was never begun, as far as the checkpoint knows."""
        if self._override is not None:
            checkpoint["loops"]["fit_loop"] = self._override


def resume_command(run_folder: Path, checkpoint: Path) -> str:
    """The command line that goes on from `checkpoint`."""
    config = shlex.quote(str(run_folder / "config.yaml"))
    return f"delta-lightning fit --config {config} --ckpt_path {shlex.quote(str(checkpoint))}"


def _loops(trainer: pl.Trainer) -> dict[str, Any]:
    return copy.deepcopy(trainer.fit_loop.state_dict())


def _after_evaluation(trainer: pl.Trainer) -> dict[str, Any]:
    """Loop counters as they will be when the held-out evaluation at the end of this rollout step is over."""
    loops = _loops(trainer)
    for counter in ("total", "current"):
        loops["epoch_progress"][counter]["processed"] += 1
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    return loops


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
