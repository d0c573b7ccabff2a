"""Whole runs through the command line, on a model of a few thousand parameters."""

from __future__ import annotations

import csv
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI

import delta_lightning
from delta_lightning import interfaces
from delta_lightning.cli import app, resume
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.backbone import Backbone
from delta_lightning.models.layout import RowLayout
from support.cli import Invoke

FAST = ("--model.backbone.layers=1", "--model.backbone.hidden_size=32", "--report.curves=false")


class Witness(Callback):
    """Keeps what a run was made of, at its first micro-batch."""

    seen: ClassVar[list[dict[str, object]]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.seen.append({"credit": type(pl_module.parts.credit).__name__, "lr": group["lr"], "step": trainer.global_step})


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    monkeypatch.setattr(Witness, "seen", [])
    monkeypatch.setattr(app, "GracefulStop", Witness)  # registered in its place; signals are not part of these tests
    return Witness.seen


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def weights_of(run: Path, name: str) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"])


def test_a_run_its_files_and_its_rerun(invoke: Invoke, tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    done = invoke(*FAST, "--trainer.max_epochs=2")
    assert done.code == 0, done.err
    assert {"config.yaml", "environment.jsonl", "metrics.csv", "tensorboard", "checkpoints", "export", "summary.json"} <= {
        f.name for f in run.iterdir()
    }
    assert "Traceback" not in done.err
    assert "UserWarning" not in done.err and "data_connector" not in done.err
    held_out = [(row["step"], row["held_out/accuracy"]) for row in rows_of(run) if row["held_out/accuracy"]]
    assert [step for step, _ in held_out] == ["0", "4"]  # before training, and after its 2 x 2 optimiser steps
    looked = invoke(*FAST, f"--ckpt_path={run / 'checkpoints' / 'step-2.ckpt'}", command="validate")
    assert "\nstep-2.ckpt  held-out accuracy" in looked.err and "step 0" not in looked.err
    repeated = invoke("fit", f"--config={run / 'config.yaml'}", small=False)
    assert repeated.code == 2 and "holds one" in repeated.err
    assert invoke("fit", f"--config={run / 'config.yaml'}", f"--run_dir={again}", small=False).code == 0
    first, second = (yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) for folder in (run, again))
    assert first | {"run_dir": None} == second | {"run_dir": None} and second["run_dir"] == str(again)
    for name, weight in weights_of(run, "step-2.ckpt").items():
        assert torch.equal(weight, weights_of(again, "step-2.ckpt")[name])


def test_a_last_step_that_was_evaluated_is_not_evaluated_again(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke(*FAST, "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1").code == 0
    assert len([row for row in rows_of(tmp_path / "run") if row["held_out/accuracy"]]) == 3


def test_a_misspelt_metric_of_the_best_checkpoint_is_refused_before_training(
    invoke: Invoke, tmp_path: Path, witness: list[dict[str, object]]
) -> None:
    done = invoke(*FAST, "--checkpoint.best=held_out/acc", "--trainer.check_val_every_n_epoch=1")
    assert done.code == 2 and "checkpoint.best: wanted a metric that the run logs, got held_out/acc" in done.err
    assert "held_out/accuracy" in done.err and witness == []


def test_on_a_resume_the_shell_wins_over_the_checkpoint(
    invoke: Invoke, tmp_path: Path, witness: list[dict[str, object]]
) -> None:
    run = tmp_path / "run"
    assert invoke(*FAST, "--trainer.max_epochs=1").code == 0
    before = rows_of(run)
    changed = ["--trainer.max_epochs=2", "--model.credit=Uniform", "--model.optimizer.lr=0.25"]
    done = invoke(
        "fit", f"--config={run / 'config.yaml'}", f"--ckpt_path={run / 'checkpoints' / 'step-1.ckpt'}", *changed, small=False
    )
    assert done.code == 0, done.err
    assert {"credit": "Delta", "lr": 1e-6, "step": 0} in witness
    assert {"credit": "Uniform", "lr": 0.25, "step": 2} in witness
    line = next(line for line in done.err.splitlines() if line.startswith("settings differ"))
    assert "model.credit.class_path (delta_lightning.credit.Delta -> delta_lightning.credit.Uniform)" in line
    assert "model.optimizer.init_args.lr (1e-06 -> 0.25)" in line and "trainer.max_epochs (1 -> 2)" in line
    assert "refinements" not in line and "run_dir" not in line
    after = rows_of(run)
    kept = [row for row in before if int(row["step"]) < 2]
    assert [{name: row[name] for name in kept[0]} for row in after[: len(kept)]] == kept
    assert [row["step"] for row in after if row["update/loss"]] == ["0", "1", "2", "3"]
    assert yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["ckpt_path"] is None


def test_validate_writes_nothing(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke(*FAST, command="validate")
    assert done.code == 0, done.err
    assert "held_out/accuracy" in done.out
    assert list(tmp_path.iterdir()) == []


def test_the_engines_are_closed_when_a_run_fails(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from delta_lightning.errors import RunError
    from delta_lightning.trainer.module import PolicyModule

    closed: list[bool] = []
    monkeypatch.setattr(PolicyModule, "close", lambda self: closed.append(True))

    def fail(self: PolicyModule, step: int, drawn: int) -> None:
        raise RunError("the verifier failed on 3 of 4 completions")

    monkeypatch.setattr(PolicyModule, "make_rollouts", fail)
    done = invoke(*FAST)
    assert done.code == 1 and done.err.endswith("error: the verifier failed on 3 of 4 completions\n")
    assert closed


def test_debug_shows_the_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from delta_lightning.errors import ConfigError

    monkeypatch.setenv("DELTA_DEBUG", "1")
    with pytest.raises(ConfigError):
        invoke("--model.credit.low=3")


def test_help_of_one_part_is_its_docstring(invoke: Invoke) -> None:
    done = invoke("fit", "--model.credit.help=Delta", small=False)
    assert done.code == 0
    assert "how often the centroids are recomputed" in " ".join(done.out.split())


def test_help_lists_the_known_classes(invoke: Invoke) -> None:
    done = invoke("fit", "--help", small=False)
    assert done.code == 0
    text = " ".join(done.out.split())
    assert "delta_lightning.credit.Delta" in text and "--run_dir" in text and "{now} becomes the date and time" in text


def test_every_part_of_the_package_is_known() -> None:
    """A part that no import of the command line reaches would have no short name."""
    for package in app.PARTS:
        importlib.import_module(f"delta_lightning.{package}")
    seams = [seam for _, seam in inspect.getmembers(interfaces, inspect.isclass) if inspect.isabstract(seam)]
    seams += [Backbone, RowLayout, Adapter]
    seams.remove(interfaces.SamplerSession)  # opened by a part, and no part itself
    known = {(cls.__module__, cls.__qualname__) for seam in seams for cls in _below(seam)}
    modules = [info.name for info in pkgutil.walk_packages(delta_lightning.__path__, "delta_lightning.")]
    for name in modules:
        if "vllm_plugin." in name:  # runs inside vLLM's processes, and holds no part
            continue
        if name.split(".")[1] in {package.partition(".")[0] for package in app.PARTS}:
            importlib.import_module(name)
    everything = {(cls.__module__, cls.__qualname__) for seam in seams for cls in _below(seam)}
    assert everything == known


def _below(seam: type) -> list[type]:
    below = [cls for child in seam.__subclasses__() for cls in (child, *_below(child))]
    return [cls for cls in below if cls.__module__.startswith("delta_lightning.")]


def test_a_refusal_is_quick_and_imports_no_heavy_library(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing that Lightning's own command line has not imported; the aim is twice its time, printed and not asserted."""
    script = """
import sys, time
start = time.perf_counter()
import lightning.pytorch.cli
imported = time.perf_counter() - start
before = set(sys.modules)
from delta_lightning.cli.app import run
assert run(["fit", "--model.backbone=Tiny", "--data.source=Arithmetic", "--model.credit.low=3"]) == 2
ratio = (time.perf_counter() - start) / imported
heavy = ("transformers", "datasets", "vllm", "matplotlib", "pyarrow", "math_verify", "sympy", "tokenizers")
print(f"{ratio:.2f}", sorted(name for name in set(sys.modules) - before if name.partition(".")[0] in heavy))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    ratio, _, heavy = done.stdout.strip().partition(" ")
    assert heavy == "[]", done.stdout + done.stderr
    with capfd.disabled():
        print(f" [refusal: {ratio} times the import of lightning.pytorch.cli]", end="")


def test_the_private_name_of_lightning_is_still_what_it_was() -> None:
    """Guards the pinned version: what would let a checkpoint beat the shell is the method that is overridden."""
    assert "_parse_ckpt_path" in vars(LightningCLI) and "_parse_ckpt_path" in vars(app.DeltaCLI)
    assert "self._parse_ckpt_path()" in inspect.getsource(LightningCLI.__init__)
    assert resume.CONFIG_KEY == "delta_lightning_config"
