"""What is read from a checkpoint before a run, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from delta_lightning.cli.resume import CONFIG_KEY, differences, read_checkpoint, renew
from delta_lightning.errors import ConfigError
from support.cli import Invoke, invoke, loads

__all__ = ["invoke", "loads"]

BEFORE = {
    "model": {"seed": 0, "credit": {"class_path": "a.Delta", "init_args": {"low": 0.8}}, "filters": [], "scheduler": None},
    "run_dir": "a",
    "ckpt_path": None,
}


def test_equal_settings_in_another_folder_are_no_difference() -> None:
    assert differences(BEFORE, BEFORE | {"run_dir": "b", "ckpt_path": "x"}) is None


def test_a_swap_is_one_difference() -> None:
    model = BEFORE["model"] | {"credit": {"class_path": "a.Uniform"}, "filters": ["a.ZeroVariance"]}  # type: ignore[operator]
    line = differences(BEFORE, BEFORE | {"model": model})
    assert line is not None
    assert line.endswith("model.credit.class_path (a.Delta -> a.Uniform), model.filters ([] -> ['a.ZeroVariance'])")


def test_a_schedule_is_said_to_go_on() -> None:
    line = differences(BEFORE, BEFORE | {"model": BEFORE["model"] | {"seed": 1, "scheduler": {"class_path": "x"}}})  # type: ignore[operator]
    assert line is not None and line.endswith("the learning rate's schedule goes on as it was")


def test_many_differences_are_counted() -> None:
    line = differences({"model": {"0": 0}}, {"model": {str(n): n for n in range(10)}})
    assert line is not None and line.endswith("and 3 more")


@pytest.mark.parametrize("folder", [False, True])
def test_a_checkpoint_file_or_folder_is_read(folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "step-1.ckpt"
    (path if folder else tmp_path).mkdir(exist_ok=True)
    torch.save({"global_step": 7, CONFIG_KEY: "model: {seed: 3}\n"}, path / "meta.pt" if folder else path)
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.step == 7 and checkpoint.config == {"model": {"seed": 3}}


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=r"other\.ckpt: wanted a checkpoint"):
        read_checkpoint(str(tmp_path / "other.ckpt"))


def test_other_checkpoints_of_the_folder_are_offered(tmp_path: Path) -> None:
    (tmp_path / "step-2.ckpt").touch()
    with pytest.raises(ConfigError, match=r"There are: .*step-2\.ckpt"):
        read_checkpoint(str(tmp_path / "step-1.ckpt"))


@pytest.mark.parametrize("given", [".", "checkpoints"])
def test_a_run_folder_in_place_of_a_checkpoint_is_told_its_checkpoints(given: str, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-2.ckpt").touch()
    outcome = invoke(f"--ckpt_path={tmp_path / given}")
    assert outcome.code == 2 and "got nothing there. There are: " in outcome.err and "step-2.ckpt" in outcome.err
    assert "earlier version" not in outcome.err


def test_settings_replace_those_of_a_group_and_leave_tensors_in_place() -> None:
    rate = torch.tensor(1e-3)
    group = {"lr": rate, "weight_decay": 0.1}
    renew(group, {"lr": torch.tensor(0.5), "weight_decay": 0.0})
    renew(group, {"lr": 0.25})
    assert group["lr"] is rate and float(rate) == 0.25 and group["weight_decay"] == 0.0


def test_an_earlier_end_and_another_optimiser_are_refused_before_a_model_loads(
    invoke: Invoke, loads: list[str], tmp_path: Path
) -> None:
    config = "model: {optimizer: {class_path: torch.optim.AdamW}}\n"
    loops = {"fit_loop": {"epoch_progress": {"current": {"completed": 3, "processed": 4}}}}  # as when a step has just ended
    torch.save({"global_step": 8, "epoch": 3, "loops": loops, CONFIG_KEY: config}, tmp_path / "step-4.ckpt")
    checkpoint = f"--ckpt_path={tmp_path / 'step-4.ckpt'}"
    for options, message in (
        (("--trainer.max_epochs=3",), "trainer.max_epochs: wanted at least 4, the rollout steps that the checkpoint has"),
        (
            ("--trainer.max_epochs=4", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1"),
            "model.optimizer: wanted the checkpoint's, torch.optim.AdamW, whose state it holds, got 'torch.optim.SGD'.",
        ),
    ):
        outcome = invoke(checkpoint, *options)
        assert outcome.code == 2 and message in outcome.err and "Traceback" not in outcome.err, outcome.err
    assert loads == []
