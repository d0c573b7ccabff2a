"""Checkpoints: where they fall, which stay, and what a disk that is full leaves."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.trainer.callbacks import GracefulStop, RolloutCheckpoint
from delta_lightning.trainer.callbacks.atomic import AtomicCheckpointIO, whole
from delta_lightning.trainer.callbacks.manifest import damage
from support.toy_run import UPDATES, ToyData, ToyModule, toy_trainer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("every", "keep", "steps", "left"),
    [
        (1, 1, 3, ["step-3.ckpt"]),
        (1, 2, 4, ["step-3.ckpt", "step-4.ckpt"]),
        (2, 9, 5, ["step-2.ckpt", "step-4.ckpt", "step-5.ckpt"]),
        (9, 1, 2, ["step-2.ckpt"]),
    ],
)
def test_saves_every_so_many_rollout_steps_and_at_the_end(
    every: int, keep: int, steps: int, left: list[str], tmp_path: Path
) -> None:
    toy_trainer(tmp_path, [RolloutCheckpoint(every=every, keep=keep)], steps=steps).fit(ToyModule(), datamodule=ToyData())
    assert names(tmp_path) == left
    last = torch.load(tmp_path / "checkpoints" / left[-1], weights_only=True)
    assert last["global_step"] == steps * UPDATES
    between = {"step": steps, "position": 0, "drawn": 0, "buffers": None}
    assert between.items() <= last["ToyData"].items(), "between rollout steps no buffer is stored"


def test_a_resume_goes_on_bitwise_and_clears_up_after_the_run_that_it_continues(tmp_path: Path) -> None:
    whole_run = ToyModule()
    toy_trainer(tmp_path / "whole", [RolloutCheckpoint()], steps=4).fit(whole_run, datamodule=ToyData())
    folder = tmp_path / "run"
    toy_trainer(folder, [RolloutCheckpoint(keep=2)], steps=2).fit(ToyModule(), datamodule=ToyData())
    (folder / "checkpoints" / "step-99.ckpt").write_text("of another run")
    resumed = ToyModule()
    trainer = toy_trainer(folder, [RolloutCheckpoint(keep=2)], steps=4)
    trainer.fit(resumed, datamodule=ToyData(), ckpt_path=folder / "checkpoints" / "step-2.ckpt")
    assert torch.equal(resumed.weights, whole_run.weights)
    assert names(folder) == ["step-3.ckpt", "step-4.ckpt", "step-99.ckpt"]


class Spoiling(pl.Callback):
    """The weights are no numbers after the second rollout step."""

    def __init__(self, value: float) -> None:
        self.value = value

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            pl_module.weights.data[3] = self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_replace_no_checkpoint(value: float, tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, [Spoiling(value), RolloutCheckpoint()], steps=3)
    with pytest.raises(
        RunError, match=r"1 trained tensors .* after optimiser step 4 \(weights\).* step-1.ckpt is the last one"
    ):
        trainer.fit(ToyModule(), datamodule=ToyData())
    assert names(tmp_path) == ["step-1.ckpt"] and damage(tmp_path / "checkpoints" / "step-1.ckpt") is None
    assert torch.load(tmp_path / "checkpoints" / "step-1.ckpt", weights_only=True)["state_dict"]["weights"].isfinite().all()


class Wrapping(torch.optim.SGD):
    """Its momentum is a tensor that wraps others, as moments in 8 bits are."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for parameter, state in self.state.items():
            value = torch.zeros_like(parameter)
            state["wrapped"] = TwoTensor(value, value.clone())
        return loss


class WrappingModule(ToyModule):
    def configure_optimizers(self) -> Any:
        return Wrapping(self.parameters(), lr=0.1, momentum=0.9)


def test_an_optimiser_state_that_wraps_tensors_is_resumed(tmp_path: Path) -> None:
    with torch.serialization.safe_globals([TwoTensor]):
        toy_trainer(tmp_path, [RolloutCheckpoint()], steps=1).fit(WrappingModule(), datamodule=ToyData())
        trainer = toy_trainer(tmp_path, [RolloutCheckpoint()], steps=2)
        trainer.fit(WrappingModule(), datamodule=ToyData(), ckpt_path=tmp_path / "checkpoints" / "step-1.ckpt")
    assert names(tmp_path) == ["step-2.ckpt"]


def test_a_full_disk_leaves_the_checkpoint_before_and_says_where_and_how_much_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(value: dict[str, Any], file: Any) -> None:
        if value.get("global_step") == 2 * UPDATES:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(value, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        RunError, match=r"checkpoint could not be written to .*checkpoints: No space left on device; [\d,]+ MiB free"
    ):
        toy_trainer(tmp_path, [RolloutCheckpoint()], steps=3).fit(ToyModule(), datamodule=ToyData())
    assert names(tmp_path) == ["step-1.ckpt"]
    assert torch.load(tmp_path / "checkpoints" / "step-1.ckpt", weights_only=True)["global_step"] == UPDATES


def test_a_really_full_device_is_recognised(tmp_path: Path) -> None:
    """torch hides the error of the file in its own; /dev/full fails every write as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    target = tmp_path / "c.ckpt"

    def save() -> None:
        with whole(target, "the checkpoint") as partial:
            partial.symlink_to("/dev/full")
            with partial.open("wb") as file:
                torch.save({"x": torch.zeros(10_000_000)}, file)

    with pytest.raises(RunError, match=r"could not be written.*No space left"):
        save()
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_through_and_leave_no_partial_file(tmp_path: Path) -> None:
    for error in (TypeError("not about storage"), RuntimeError("also not")):
        with pytest.raises(type(error), match=f"^{error}$"):
            _fail(tmp_path / "a", "half", error)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_by_something_whole(tmp_path: Path) -> None:
    for target, write in ((tmp_path / "file", _write_file), (tmp_path / "folder", _write_folder)):
        with whole(target, "it") as partial:
            write(partial, "old")
        with pytest.raises(KeyboardInterrupt):
            _fail(target, "new", KeyboardInterrupt(), write)
        assert _read(target) == "old"
        with whole(target, "it") as partial:
            write(partial, "new")
        assert _read(target) == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def _write_file(path: Path, text: str) -> None:
    path.write_text(text)


def _fail(target: Path, text: str, error: BaseException, write: Callable[[Path, str], None] = _write_file) -> None:
    with whole(target, "it") as partial:
        write(partial, text)
        raise error


def _write_folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / "inside").write_text(text)


def _read(path: Path) -> str:
    return (path / "inside" if path.is_dir() else path).read_text()


def test_a_partial_file_of_a_killed_run_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".c.ckpt.partial").write_text("half of an old one")
    AtomicCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "c.ckpt")
    assert torch.load(tmp_path / "c.ckpt") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c.ckpt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file: (Not a directory|File exists)\. .* Make the folder writable, or choose another"):
        AtomicCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "file" / "c.ckpt")


@pytest.mark.parametrize("options", [{"every": 0}, {"keep": 0}, {"folder": " "}])
def test_refuses_senseless_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RolloutCheckpoint(**options)


def test_free_space_is_that_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 5 * 2**20))
    with pytest.raises(RunError, match="; 5 MiB free"), whole(tmp_path / "a", "it"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_best_one_stays_under_its_own_name_over_a_resume(tmp_path: Path) -> None:
    """Of [-1, 2, 2, 1, 3] the second is best, then the fifth."""
    values = [-1.0, 2.0, 2.0, 1.0, 3.0]

    class Module(ToyModule):
        def on_validation_epoch_end(self) -> None:
            self.log_dict({"held_out/accuracy": values[self.current_epoch]})

    def fit(steps: int, checkpoint: Path | None = None) -> None:
        callback = RolloutCheckpoint(every=2, best="held_out/accuracy")
        trainer = toy_trainer(tmp_path, [callback], steps=steps, check_val_every_n_epoch=1)
        trainer.fit(Module(), datamodule=ToyData(), ckpt_path=checkpoint)

    fit(4)
    assert names(tmp_path) == ["best-step-2.ckpt", "step-4.ckpt"]
    best = torch.load(tmp_path / "checkpoints" / "best-step-2.ckpt", weights_only=True)
    assert best["global_step"] == 2 * UPDATES and damage(tmp_path / "checkpoints" / "best-step-2.ckpt") is None
    fit(5, tmp_path / "checkpoints" / "step-4.ckpt")
    assert names(tmp_path) == ["best-step-5.ckpt", "step-5.ckpt"]


def test_the_smallest_may_be_the_best(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, [RolloutCheckpoint(best="reward/mean", best_is="min")], steps=3)
    trainer.fit(ToyModule(), datamodule=ToyData())
    assert names(tmp_path) == ["best-step-1.ckpt", "step-3.ckpt"], "it grows by 0.1 in each step"


def test_a_metric_that_is_not_logged_is_named_with_those_that_are(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, [RolloutCheckpoint(best="reward/men")], steps=3)
    with pytest.raises(
        ConfigError, match=r"checkpoint.best: wanted a metric that the run logs, got reward/men\. It logs .*reward/mean"
    ):
        trainer.fit(ToyModule(), datamodule=ToyData())


def test_a_step_whose_evaluation_was_given_up_is_compared_by_its_own_updates(tmp_path: Path) -> None:
    """The resumed run has that evaluation only; reward/mean grows in each step, so that the second is best."""

    def fit(at: Callable[[str, int, int], None], **options: Any) -> None:
        callbacks: list[Any] = [GracefulStop(), RolloutCheckpoint(best="reward/mean")]
        toy_trainer(tmp_path, callbacks, steps=2).fit(ToyModule(at), datamodule=ToyData(), **options)

    with pytest.raises(SystemExit):
        fit(lambda *place: signal.raise_signal(signal.SIGTERM) if place == ("validate", 1, 1) else None)
    assert names(tmp_path) == ["best-step-1.ckpt", "step-2.ckpt"]
    fit(lambda *place: None, ckpt_path=tmp_path / "checkpoints" / "step-2.ckpt")
    assert names(tmp_path) == ["best-step-2.ckpt", "step-2.ckpt"]


def test_a_run_killed_before_the_best_got_its_name_gives_it_that(tmp_path: Path) -> None:
    fit = toy_trainer(tmp_path, [RolloutCheckpoint(best="reward/mean", best_is="min")], steps=1).fit
    fit(ToyModule(), datamodule=ToyData())
    (tmp_path / "checkpoints" / "best-step-1.ckpt").unlink()
    trainer = toy_trainer(tmp_path, [RolloutCheckpoint(best="reward/mean", best_is="min")], steps=2)
    trainer.fit(ToyModule(), datamodule=ToyData(), ckpt_path=tmp_path / "checkpoints" / "step-1.ckpt")
    assert names(tmp_path) == ["best-step-1.ckpt", "step-2.ckpt"]


def test_a_value_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    """No later one would beat it, since nothing compares with it."""
    values = [float("nan"), 1.0]

    class Module(ToyModule):
        def on_validation_epoch_end(self) -> None:
            self.log_dict({"held_out/accuracy": values[self.current_epoch]})

    trainer = toy_trainer(tmp_path, [RolloutCheckpoint(best="held_out/accuracy")], steps=2, check_val_every_n_epoch=1)
    trainer.fit(Module(), datamodule=ToyData())
    assert names(tmp_path) == ["best-step-2.ckpt", "step-2.ckpt"]


def test_a_resume_by_another_metric_begins_its_comparison_anew(tmp_path: Path) -> None:
    """reward/mean is 0.0 in the first step, no length can be less; the best one so far by that metric stays."""
    fit = toy_trainer(tmp_path, [RolloutCheckpoint(best="reward/mean", best_is="min")], steps=1).fit
    fit(ToyModule(), datamodule=ToyData())
    trainer = toy_trainer(tmp_path, [RolloutCheckpoint(best="rollout/completion_tokens", best_is="min")], steps=3)
    trainer.fit(ToyModule(), datamodule=ToyData(), ckpt_path=tmp_path / "checkpoints" / "step-1.ckpt")
    assert names(tmp_path) == ["best-step-1.ckpt", "best-step-2.ckpt", "step-3.ckpt"]
