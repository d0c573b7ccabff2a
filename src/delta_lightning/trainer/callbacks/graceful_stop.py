"""Ctrl-C, SIGTERM and SLURM's SIGUSR1 end a run with a checkpoint and nothing lost but the rollouts being sampled."""

from __future__ import annotations

import copy
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch

from delta_lightning.errors import require
from delta_lightning.trainer.callbacks.requeue import JOB, requeue
from delta_lightning.trainer.callbacks.rollout_checkpoint import RolloutCheckpoint
from delta_lightning.trainer.progress import GivenUp
from delta_lightning.trainer.ranks import Ranks

# By precedence, where ranks got different ones.
NAMES = {signal.SIGUSR1: "SIGUSR1", signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
FLAG = "delta_lightning/stop"
LOOK = 1.0  # seconds between two looks whether another rank was asked to stop


class Stopped(SystemExit):
    """Ends the run, cleanly: exit code 130 after Ctrl-C, which somebody may wait for; 0 after the signals of schedulers."""

    def __init__(self, signum: int) -> None:
        super().__init__(130 if signum == signal.SIGINT else 0)


class GracefulStop(pl.Callback):
    """Stops on Ctrl-C or SIGTERM at the next point that can be resumed exactly, with a checkpoint. Ctrl-C again ends at once.

    While completions are sampled and verified, the step is given up at once; the checkpoint holds the state before it. During
    updates the optimiser step is finished first, never cut in the middle of its micro-batches; the checkpoint then holds the
    rest of the rollout step. Scoring is given up too on one rank; several ranks, which wait for one another in there, end it
    and the optimiser step that follows. It is enough that one rank gets the signal. Before training begins there is nothing to
    save and the run ends at once.

    In a SLURM job SIGUSR1 does the same and has the job requeued. The exit code is 0 after SIGTERM and SIGUSR1, 130 after
    Ctrl-C.

    Args:
        grace_seconds: from the signal until the saving must have begun; past it the process ends without a new checkpoint
            (exit code 1), and the last one stays. None waits as long as it takes.
    """

    def __init__(self, grace_seconds: float | None = None) -> None:
        require(grace_seconds is None or grace_seconds > 0, "stop.grace_seconds", wanted="more than 0", got=grace_seconds,
                remedy="Leave it out to wait as long as it takes.")  # fmt: skip
        self.grace_seconds = grace_seconds
        self.ends_process = False  # set by the command line: when the run is over, so is the process
        self._over = False  # nothing is left to save
        self._grace: threading.Timer | None = None
        self._looked, self._flagged = 0.0, False
        self._requested: int | None = None
        self._originals: dict[int, Any] = {}
        self._listening = self._training = self._updating = False
        self._boundary: dict[str, Any] = {}  # Lightning's loop counters at the last rollout boundary
        self._override: dict[str, Any] | None = None  # those that the checkpoint gets in place of the present ones

    # Signals ---------------------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen from before the model loads."""
        self._requested, self._override, self._training, self._updating = None, None, False, False
        self._over = self._over and stage != "fit"
        self._trainer = trainer
        self._listen()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before training too, in place of Lightning, whose handler would leave a rank waiting for the others."""
        self._listen()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen in place of Lightning, whose own handler of SIGTERM would cut an optimiser step in two."""
        self._listen()
        self._training, self._boundary = True, _loops(trainer)
        module: Any = pl_module
        together = not module.sampler.ranks_sample_together()
        module.progress.guard = lambda: self._interrupt(trainer, alone=together and module.progress.may_give_up)
        module.progress.meet = lambda: self._meet(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is left writes checkpoint, export and report: a first signal no longer matters, a second one still ends it."""
        module: Any = pl_module
        module.progress.guard = module.progress.meet = lambda: None

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop listening."""
        self._over = self._over or stage == "fit"
        self._forget(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop listening."""
        self._forget(pl_module)

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._listening = True
        for signum in NAMES if JOB in os.environ else (signal.SIGTERM, signal.SIGINT):
            self._originals.setdefault(signum, signal.getsignal(signum))
            signal.signal(signum, self._handle)

    def _forget(self, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        module.progress.guard = module.progress.meet = lambda: None
        self._end_grace()
        if self._listening:
            self._listening = self._training = False
            for signum in self._originals:
                signal.signal(signum, self._afterwards(signum))

    def _afterwards(self, signum: int) -> Any:
        """Who listens when the callback does not.

        Where the process ends with the run, schedulers' signals change nothing any more: they are sent to every rank, some of
        which have ended a little before the others, and Lightning kills the others when a signal ends one.
        """
        if self.ends_process and self._over and signum != signal.SIGINT:
            return signal.SIG_IGN
        return self._originals[signum] or signal.SIG_DFL

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Runs in the main thread between two instructions: it notes the wish, or ends the run if there is nothing to lose."""
        if not self._listening:  # Lightning puts back the handlers that it found when the run began, after a failure too
            signal.signal(signum, self._afterwards(signum))
            signal.raise_signal(signum)
            return
        # A second Ctrl-C ends the process at once, even inside a long call. Schedulers and launchers repeat their signals
        # without meaning anything by it, and have SIGKILL.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        first, name = self._requested is None, NAMES[signal.Signals(signum)]
        if not self._training:
            if not first:
                return
            saved = "Training had ended and is saved, the evaluation after it is given up."
            _say(f"\n{name}: stopped. {saved if self._over else 'No training was under way, so nothing was lost.'}")
            self._requested, self._over = signum, True
            self._requeue(self._trainer, signum)
            raise Stopped(signum)
        self._requested = signum if self._requested in (None, signal.SIGTERM) else self._requested
        if first:
            _say(f"\n{name}: stopping with a checkpoint as soon as the step allows. Ctrl-C ends at once, without one.")
            self._begin_grace()

    # The end of patience ---------------------------------------------------------------------------------------------

    def _begin_grace(self) -> None:
        if self.grace_seconds is not None:
            self._grace = threading.Timer(self.grace_seconds, self._give_out)
            self._grace.daemon = True
            self._grace.start()

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()

    def _give_out(self) -> None:
        """In a thread: the main one may be inside a call that does not return in time."""
        path = self._checkpoints(self._trainer).latest
        _say(f"No point to stop at within stop.grace_seconds={self.grace_seconds:g}; ends without a new checkpoint. "
             f"The last one is {path or 'none: no rollout step had ended'}.")  # fmt: skip
        code = 1
        try:
            code = 0 if self._requeue(self._trainer, self._requested) else 1
        finally:
            os._exit(code)  # what is running in other processes ends with this one

    # Where to stop ---------------------------------------------------------------------------------------------------

    def _interrupt(self, trainer: pl.Trainer, *, alone: bool) -> None:
        """Called at every tick of the progress: stop if nothing but unfinished rollouts would be lost.

        `alone`: one of several ranks may leave this phase early; all of them meet at its end.
        """
        if self._updating:
            return
        if trainer.world_size == 1:
            if self._requested is not None:
                self._stop_before_step(trainer, self._requested)
        elif alone and self._any_rank():
            raise GivenUp

    def _any_rank(self) -> bool:
        """Whether this rank was asked to stop, which it lets the others know, or another was. Not collective."""
        ranks = Ranks.current()
        if self._requested is not None:
            if not self._flagged:
                ranks.raise_flag(FLAG)
                self._flagged = True
            return True
        if time.monotonic() - self._looked < LOOK:
            return False
        self._looked = time.monotonic()
        return ranks.flag_raised(FLAG)

    def _meet(self, trainer: pl.Trainer) -> None:
        """Called by every rank at the end of a phase that one of them may have left early: stop if so. Collective."""
        signum = self._request_of_all(trainer) if trainer.world_size > 1 else None
        if signum is not None:
            self._stop_before_step(trainer, signum)

    def _stop_before_step(self, trainer: pl.Trainer, signum: int) -> None:
        ended = trainer.fit_loop.done  # by `max_steps`: a resume trains no more, and would not come to the evaluation
        evaluation = _after_evaluation if ended else _before_evaluation
        self._override = evaluation(trainer) if trainer.validating else self._boundary
        if trainer.validating and trainer.is_global_zero:
            again = "does not repeat it" if ended else "begins with it"
            _say(f"The held-out evaluation that was under way is given up; a resume {again}.")
        self._stop(trainer, signum)

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
        if trainer.is_last_batch:
            return
        signum = self._request_of_all(trainer)
        if signum is not None:
            pl_module.on_train_batch_end(outputs, batch, batch_idx)  # Lightning calls it, and its loggers, after the callbacks
            trainer._logger_connector.update_train_step_metrics()
            self._stop(trainer, signum)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A rollout boundary."""
        self._boundary = _loops(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Between two rollout steps, when every callback has seen the end of the one before: stop if any rank was asked to."""
        signum = self._request_of_all(trainer)
        if signum is not None:
            self._override = self._boundary
            self._stop(trainer, signum)

    def _request_of_all(self, trainer: pl.Trainer) -> int | None:
        """The signal that any rank got. Collective."""
        asked = torch.tensor([float(self._requested == each) for each in NAMES], device=trainer.strategy.root_device)
        return next((each for each, count in zip(NAMES, Ranks.current().all_sum(asked).tolist(), strict=True) if count), None)

    def _stop(self, trainer: pl.Trainer, signum: int) -> None:
        self._end_grace()
        path = self._checkpoints(trainer).save(trainer)
        if trainer.is_global_zero:
            _say(f"Stopped; checkpoint: {path}\nTo go on: {resume_command(Path(trainer.default_root_dir), path)}")
        self._requeue(trainer, signum)
        self._over = True
        raise Stopped(signum)

    @staticmethod
    def _checkpoints(trainer: pl.Trainer) -> RolloutCheckpoint:
        found = [one for one in trainer.checkpoint_callbacks if isinstance(one, RolloutCheckpoint)]
        return found[0] if found else RolloutCheckpoint()

    @staticmethod
    def _requeue(trainer: pl.Trainer, signum: int | None) -> bool:
        """Has the job requeued, by rank 0, if that is what the signal means. Raises `RunError`."""
        if signum != signal.SIGUSR1 or not trainer.is_global_zero:
            return False
        _say(f"SLURM job {requeue(os.environ)} is requeued; with --ckpt_path=last-if-any its command goes on from here.")
        return True

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


def _before_evaluation(trainer: pl.Trainer) -> dict[str, Any]:
    """Loop counters with which Lightning begins the held-out evaluation under way anew: its first batch begun, none done."""
    loops = _loops(trainer)
    batches = loops["epoch_loop.val_loop.batch_progress"]
    none = dict.fromkeys(batches["current"], 0)
    batches |= {"current": none, "total": none | {"ready": 1, "started": 1}, "is_last_batch": False}
    return loops


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
