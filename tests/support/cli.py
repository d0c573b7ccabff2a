"""Running the command line inside the test process, and a check that it never gets as far as a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from delta_lightning.__main__ import main

SMALL = (
    "--model.backbone=Tiny", "--data.source=Arithmetic", "--data.source.num_train=8", "--data.source.num_held_out=4",
    "--model.prompts_per_step=4", "--model.completions_per_prompt=2", "--model.updates_per_step=2", "--model.micro_batches=1",
    "--model.sampling.max_new_tokens=4", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Outcome]


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """`invoke("--model.credit=Uniform")` runs `fit` on a tiny model in `tmp_path / "run"` with these arguments added."""
    monkeypatch.setattr(sys, "argv", ["delta-lightning"])
    for name in ("LOCAL_RANK", "RANK", "MASTER_ADDR", "NODE_RANK", "DELTA_RUN_DIR", "DELTA_DEBUG", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "")  # so that what the run puts there is taken away again
        monkeypatch.delenv(name)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    import_module("delta_lightning.cli.app")  # slow the first time, which `main` would say
    listens = signal.getsignal(signal.SIGTERM)

    def run(*args: str, small: bool = True, command: str = "fit") -> Outcome:
        capfd.readouterr()
        before = [command, *SMALL, f"--run_dir={tmp_path / 'run'}"] if small else []
        code = main([*before, *args])
        signal.signal(signal.SIGTERM, listens)  # which a process that ends with its run no longer hears
        printed = capfd.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of backbones that were asked for a model; none of them loads one."""
    from delta_lightning.models.backbone import Backbone

    asked: list[str] = []
    for cls in Backbone.__subclasses__():
        monkeypatch.setattr(cls, "load", lambda self, context: asked.append(type(self).__name__))
    return asked


def shell(*args: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "delta_lightning", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120, check=False)
