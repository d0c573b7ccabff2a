"""One line per rollout step; curves, a summary file and a table at the end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from delta_lightning.report.curves import PHASES, draw_curves
from delta_lightning.report.provenance import provenance
from delta_lightning.report.summary import Row, summarise, summary_table
from delta_lightning.trainer.callbacks.atomic import whole

HELD_OUT = "held_out/"


class RunReport(pl.Callback):
    """Prints a line per rollout step and writes `curves.png` and `summary.json` to the run folder when training ends.

    The table is printed after the closing held-out evaluation: the one that falls on the last rollout step, or the `validate`
    that `delta-lightning fit` runs after training. Everything is gathered over a resume too: a checkpoint holds the history.

    Args:
        lines: print a line per rollout step and per held-out evaluation.
        curves: draw the learning curves.
    """

    def __init__(self, lines: bool = True, curves: bool = True) -> None:
        self.lines, self.curves = lines, curves
        self.history: list[Row] = []  # one row of metrics per rollout step; "step" counts from 1
        self.held_out: list[Row] = []  # one per evaluation; "step" is the number of rollout steps before it
        self._started = 0.0
        self._trained = False

    # Gathering -------------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A rollout step begins."""
        self._started = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The updates are over when the held-out evaluation at the end of a rollout step begins."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._gather(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The updates are over."""
        self._gather(trainer, pl_module)

    def _gather(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The metrics of the rollout step that just ended, once."""
        step = trainer.current_epoch + 1
        if self.history and self.history[-1]["step"] >= step:
            return
        row = {name: float(value) for name, value in trainer.callback_metrics.items() if not name.startswith(HELD_OUT)}
        if self._started:  # a step that was resumed in its middle has no wall-clock time of its own
            row["seconds/step"] = time.perf_counter() - self._started
        self.history.append({"step": step} | row)
        module: Any = pl_module
        if self.lines:
            module.progress.line(step_line(self.history[-1], steps=trainer.max_epochs))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A held-out evaluation is over; the closing one completes the report."""
        inside = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        step = trainer.current_epoch + int(inside)
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(HELD_OUT)}
        if not values:
            return
        self.held_out = [*(row for row in self.held_out if row["step"] != step), {"step": step} | values]
        module: Any = pl_module
        if self.lines and "held_out/accuracy" in values:
            given = trainer.ckpt_path if trainer.state.fn == TrainerFn.VALIDATING else None  # `validate` counts no steps
            where = f"step {step}" if given is None else Path(given).name
            module.progress.line(f"{where}  held-out accuracy {values['held_out/accuracy']:.3f}")
        if self._trained and not inside:
            self._write(trainer, module, table=True)

    def state_dict(self) -> dict[str, Any]:
        """The history, as plain numbers."""
        return {"history": [dict(row) for row in self.history], "held_out": [dict(row) for row in self.held_out]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of the run that is resumed."""
        self.history, self.held_out = list(state_dict["history"]), list(state_dict["held_out"])

    # Reporting -------------------------------------------------------------------------------------------------------

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known; the table waits for the closing evaluation if one may still come."""
        self._trained = True
        evaluated = bool(self.held_out) and self.held_out[-1]["step"] >= trainer.current_epoch
        self._write(trainer, pl_module, table=evaluated)

    def _write(self, trainer: pl.Trainer, module: Any, *, table: bool) -> None:
        if not trainer.is_global_zero or not self.history:
            return
        folder = Path(trainer.default_root_dir)
        cut = module.plan
        summary = summarise(self.history, self.held_out, sequences_per_step=cut.cut.num_groups * cut.completions, phases=PHASES)
        summary |= {"provenance": provenance(seeds={"seed": cut.seed})}
        with whole(folder / "summary.json", "the summary") as partial:
            partial.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        if self.curves:
            with whole(folder / "curves.png", "the curves") as partial:
                draw_curves(self.history, self.held_out, partial, title=folder.name)
        if table:
            module.progress.line(f"\n{summary_table(summary)}\n\n{whereabouts(folder)}")


def step_line(row: Row, *, steps: int | None) -> str:
    """`step 3/40  reward 0.410  accuracy 0.410  length 32  kl 0.0021  4.1 s`; what was not measured is left out."""
    parts = [f"step {row['step']:.0f}/{steps}" if steps and steps > 0 else f"step {row['step']:.0f}"]
    shown = (
        ("reward/mean", "reward {:.3f}"), ("rollout/accuracy", "accuracy {:.3f}"),
        ("rollout/completion_tokens", "length {:.0f}"), ("update/kl_nats", "kl {:.4f}"),
        ("credit/std", "credit ±{:.3f}"), ("seconds/step", "{:.1f} s"),
    )  # fmt: skip
    return "  ".join(parts + [text.format(row[name]) for name, text in shown if name in row])


def whereabouts(folder: Path) -> str:
    """What the run folder holds, one line each, with what it is for."""
    known = (
        ("curves.png", "learning curves"), ("summary.json", "this table, with provenance"), ("metrics.csv", "every metric"),
        ("tensorboard", "the same: tensorboard --logdir"), ("config.yaml", "the resolved config"),
        ("checkpoints", "to go on: --ckpt_path"), ("export", "the model: AutoModelForCausalLM.from_pretrained"),
    )  # fmt: skip
    there = [(name, use) for name, use in known if (folder / name).exists()]
    width = max((len(name) for name, _ in there), default=0)
    return "\n".join([f"In {folder}:", *(f"  {name.ljust(width)}  {use}" for name, use in there)])
