"""Resuming a run whose data changed in the meantime."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.trainer.module import PolicyModule
from support.cli import Invoke

FAST = ("--model.backbone.layers=1", "--model.backbone.hidden_size=32", "--report.curves=false")


def test_changed_data_are_refused_before_a_model_loads(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert invoke(*FAST, "--trainer.max_epochs=1").code == 0
    resume = (
        "fit", f"--config={run / 'config.yaml'}", f"--ckpt_path={run / 'checkpoints' / 'step-1.ckpt'}",
        "--trainer.max_epochs=2", "--data.template=Sum: {question}",
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(PolicyModule, "configure_model", lambda self: pytest.fail("a model loaded"))
        done = invoke(*resume, small=False)
    assert done.code == 2 and "Traceback" not in done.err
    assert "training prompts of the checkpoint's run, got" in done.err and "first difference at prompt 1, here" in done.err
    done = invoke(*resume, "--data.accept_changed=true", small=False)
    assert done.code == 0, done.err
