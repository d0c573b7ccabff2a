"""The report: what is gathered, when it is written, what is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from delta_lightning.trainer.callbacks import RolloutCheckpoint, RunReport
from delta_lightning.trainer.callbacks.run_report import step_line, whereabouts
from delta_lightning.trainer.progress import Progress
from support.toy_run import ToyData, ToyModule, toy_trainer


def run(folder: Path, *, steps: int, **options: object) -> tuple[RunReport, ToyModule, io.StringIO, object]:
    module, report, out = ToyModule(), RunReport(), io.StringIO()
    module.progress = Progress(out)
    trainer = toy_trainer(folder, [report, RolloutCheckpoint()], steps=steps, **options)
    trainer.fit(module, datamodule=ToyData())
    return report, module, out, trainer


def test_gathers_one_row_per_rollout_step_and_one_per_evaluation(tmp_path: Path) -> None:
    report, _, out, _ = run(tmp_path, steps=4)
    assert [row["step"] for row in report.history] == [1, 2, 3, 4]
    assert [row["reward/mean"] for row in report.history] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert all(row["seconds/step"] > 0 and "held_out/accuracy" not in row for row in report.history)
    assert [row["step"] for row in report.held_out] == [2, 4], "evaluated after every second step"
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("step ")][:3] == ["step 1/4", "step 2/4", "step 2"]


def test_writes_summary_curves_and_table(tmp_path: Path) -> None:
    _, _, out, _ = run(tmp_path, steps=4)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 4
    assert (summary["held_out_accuracy"]["before_step"], summary["held_out_accuracy"]["after_step"]) == (2, 4)
    assert summary["first_and_last"]["reward/mean"] == pytest.approx([0.0, 0.3])
    assert summary["provenance"]["seeds"] == {"seed": 0}
    assert summary["tokens_per_second"]["sampled"] == pytest.approx(2 * 4 * 10 / 0.5)
    assert (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert out.getvalue().count("held-out accuracy  ") == 1, "the table is printed once"
    assert "checkpoints" in out.getvalue().split("In ")[-1]


def test_the_table_waits_for_the_closing_evaluation(tmp_path: Path) -> None:
    _, module, out, trainer = run(tmp_path, steps=3)
    assert "before" not in out.getvalue() and (tmp_path / "summary.json").is_file()
    trainer.validate(module, datamodule=ToyData(), verbose=False)
    assert "before" in out.getvalue()
    assert json.loads((tmp_path / "summary.json").read_text())["held_out_accuracy"]["after_step"] == 3


def test_an_evaluation_before_training_is_step_0(tmp_path: Path) -> None:
    module, report = ToyModule(), RunReport()
    trainer = toy_trainer(tmp_path, [report], steps=2)
    trainer.validate(module, datamodule=ToyData(), verbose=False)
    assert report.held_out == [{"step": 0, "held_out/accuracy": 0.0}]
    assert not (tmp_path / "summary.json").exists()
    trainer.fit(module, datamodule=ToyData())
    assert [row["step"] for row in report.held_out] == [0, 2]


def test_the_history_survives_a_resume(tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    report = RunReport(lines=False, curves=False)
    trainer = toy_trainer(tmp_path, [report, RolloutCheckpoint()], steps=4)
    trainer.fit(ToyModule(), datamodule=ToyData(), ckpt_path=tmp_path / "checkpoints" / "step-2.ckpt")
    assert [row["step"] for row in report.history] == [1, 2, 3, 4]
    assert [row["step"] for row in report.held_out] == [2, 4]


def test_the_line_of_a_step() -> None:
    row = {"step": 3, "reward/mean": 0.41, "rollout/completion_tokens": 32.4, "update/kl_nats": 0.00213, "seconds/step": 4.06}
    assert step_line(row, steps=40) == "step 3/40  reward 0.410  length 32  kl 0.0021  4.1 s"
    assert step_line({"step": 3}, steps=-1) == "step 3"


def test_names_only_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    text = whereabouts(tmp_path)
    assert "export" in text and "curves.png" not in text
