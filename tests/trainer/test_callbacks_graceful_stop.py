"""A signal at any point of a run: the checkpoint resumes to bitwise the same parameters, and the process says how."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from delta_lightning.trainer.callbacks import GracefulStop, RolloutCheckpoint, RunReport
from delta_lightning.trainer.callbacks.graceful_stop import resume_command
from support.toy_run import MICRO, UPDATES, ToyData, ToyModule, toy_trainer

STEPS = 4


@pytest.fixture(autouse=True)
def _default_handlers() -> Iterator[None]:
    """Lightning puts back the handlers that it found when a run began, so a run that was stopped leaves ours."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Steps(pl.Callback):
    """Optimiser steps and epochs as Lightning counts them, at every optimiser step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        if not trainer.fit_loop._should_accumulate():
            self.seen.append((trainer.current_epoch, trainer.global_step, trainer.fit_loop.epoch_loop._batches_that_stepped))


def callbacks() -> list[pl.Callback]:
    return [Steps(), GracefulStop(), RunReport(curves=False, lines=False), RolloutCheckpoint(every=3)]


def uninterrupted(folder: Path) -> tuple[ToyModule, list[tuple[int, int, int]]]:
    module, parts = ToyModule(), callbacks()
    toy_trainer(folder, parts, steps=STEPS).fit(module, datamodule=ToyData())
    return module, parts[0].seen  # type: ignore[attr-defined]


def stop_at(where: tuple[str, int, int], signum: int = signal.SIGINT) -> Callable[[str, int, int], None]:
    def at(*place: object) -> None:
        if place == where:
            signal.raise_signal(signum)

    return at


EVERYWHERE = (
    [("sample", step, 1) for step in range(STEPS)]
    + [("train", step, index) for step in range(STEPS) for index in range(UPDATES * MICRO)]
    + [("validate", 1, 0), ("validate", 1, 2), ("validate", 3, 1)]
)


@pytest.mark.parametrize("where", EVERYWHERE, ids=lambda where: "-".join(map(str, where)))
def test_a_run_stopped_anywhere_ends_bitwise_as_one_that_was_not(
    where: tuple[str, int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, expected_steps = uninterrupted(tmp_path / "whole")
    module, first = ToyModule(stop_at(where)), callbacks()
    with pytest.raises(SystemExit) as stopped:
        toy_trainer(tmp_path / "run", first, steps=STEPS).fit(module, datamodule=ToyData())
    assert stopped.value.code == 130
    command = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("To go on: "))
    words = shlex.split(command.removeprefix("To go on: "))
    assert words[:4] == ["delta-lightning", "fit", "--config", str(tmp_path / "run" / "config.yaml")]
    checkpoint = words[words.index("--ckpt_path") + 1]
    again: list[tuple[str, int, int]] = []
    resumed, second = ToyModule(lambda *place: again.append(place)), callbacks()
    toy_trainer(tmp_path / "run", second, steps=STEPS).fit(resumed, datamodule=ToyData(), ckpt_path=checkpoint)
    assert torch.equal(resumed.weights, reference.weights)
    if where[0] == "validate":
        assert again[:3] == [("validate", where[1], batch) for batch in range(3)], "from its beginning"
    assert first[0].seen + second[0].seen == expected_steps  # type: ignore[attr-defined]
    given_up = [where[1]] if where[0] == "sample" else []
    assert module.sampled + resumed.sampled == list(range(STEPS)), f"sampled again although only {given_up} was given up"
    report = second[2]
    assert isinstance(report, RunReport)
    assert [row["step"] for row in report.history] == [1, 2, 3, 4]
    assert [row["step"] for row in report.held_out] == [2, 4], "each evaluation is whole, and there once"


def test_an_evaluation_after_the_last_of_max_steps_is_not_had_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"steps": -1, "max_steps": 2 * UPDATES}
    with pytest.raises(SystemExit):
        toy_trainer(tmp_path, callbacks(), **options).fit(ToyModule(stop_at(("validate", 1, 1))), datamodule=ToyData())
    assert "a resume does not repeat it" in capsys.readouterr().err
    trainer, checkpoint = toy_trainer(tmp_path, callbacks(), **options), tmp_path / "checkpoints" / "step-2.ckpt"
    trainer.fit(ToyModule(), datamodule=ToyData(), ckpt_path=checkpoint)
    assert (trainer.fit_loop.epoch_progress.current.processed, trainer.global_step) == (2, 4)


def test_the_stop_falls_where_it_should(tmp_path: Path) -> None:
    """At once in sampling, after the optimiser step in updates, and never in the middle of its micro-batches."""
    for where, name, step in (
        (("sample", 2, 0), "step-2.ckpt", 4), (("train", 1, 0), "step-1-update-1.ckpt", 3),
        (("train", 1, 1), "step-1-update-1.ckpt", 3), (("train", 1, 2), "step-2.ckpt", 4),
        (("validate", 1, 0), "step-2.ckpt", 4),
    ):  # fmt: skip
        module, folder = ToyModule(stop_at(where)), tmp_path / "-".join(map(str, where))
        with pytest.raises(SystemExit):
            toy_trainer(folder, callbacks(), steps=STEPS).fit(module, datamodule=ToyData())
        assert [path.name for path in (folder / "checkpoints").iterdir()] == [name], where
        assert torch.load(folder / "checkpoints" / name, weights_only=True)["global_step"] == step, where
        if where[0] == "sample":
            assert module.sampled == [0, 1]


def test_sigterm_ends_with_0(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        toy_trainer(tmp_path, callbacks()).fit(ToyModule(stop_at(("train", 1, 0), signal.SIGTERM)), datamodule=ToyData())
    assert stopped.value.code == 0
    assert (tmp_path / "checkpoints" / "step-1-update-1.ckpt").is_file()


def test_a_second_signal_ends_at_once_and_the_handlers_come_back(tmp_path: Path) -> None:
    seen: list[object] = []

    def at(*place: object) -> None:
        if place == ("train", 1, 0):
            signal.raise_signal(signal.SIGINT)
            seen.append(signal.getsignal(signal.SIGINT))

    with pytest.raises(SystemExit):
        toy_trainer(tmp_path, callbacks()).fit(ToyModule(at), datamodule=ToyData())
    assert seen == [signal.SIG_DFL], "the next signal must kill, even inside a long call of C"
    with pytest.raises(KeyboardInterrupt):  # Lightning leaves our handler in place after a failure; it must hand over
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_come_back_after_a_run_that_ended_well(tmp_path: Path) -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    toy_trainer(tmp_path, callbacks(), steps=1).fit(ToyModule(), datamodule=ToyData())
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_before_training_there_is_nothing_to_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Early(ToyModule):
        def configure_model(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as stopped:
        toy_trainer(tmp_path, callbacks()).fit(Early(), datamodule=ToyData())
    assert stopped.value.code == 130
    assert "nothing was lost" in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.ckpt"))


def test_a_run_without_signal_and_without_checkpoints_is_left_alone(tmp_path: Path) -> None:
    module = ToyModule()
    toy_trainer(tmp_path / "a", [GracefulStop()], steps=STEPS, enable_checkpointing=False).fit(module, datamodule=ToyData())
    assert torch.equal(module.weights, uninterrupted(tmp_path / "b")[0].weights)
    assert not list((tmp_path / "a").glob("**/*.ckpt"))


def test_the_command_is_quoted_for_the_shell() -> None:
    command = resume_command(Path("/runs/my run"), Path("/runs/my run/checkpoints/step-3.ckpt"))
    assert shlex.split(command)[-3:] == ["/runs/my run/config.yaml", "--ckpt_path", "/runs/my run/checkpoints/step-3.ckpt"]


def test_the_best_by_a_metric_of_the_updates_is_compared_in_the_steps_that_measure_it(tmp_path: Path) -> None:
    """A run that is resumed in an evaluation has not seen the updates before it."""
    with pytest.raises(SystemExit):
        toy_trainer(tmp_path, [GracefulStop(), RolloutCheckpoint(best="reward/mean")]).fit(
            ToyModule(stop_at(("validate", 1, 0))), datamodule=ToyData()
        )
    resumed = [GracefulStop(), RolloutCheckpoint(best="reward/mean")]
    toy_trainer(tmp_path, resumed).fit(ToyModule(), datamodule=ToyData(), ckpt_path=tmp_path / "checkpoints" / "step-2.ckpt")
    assert resumed[1].best_of == ["step-4.ckpt"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("ends_process", [True, False])
def test_a_signal_after_the_run_changes_nothing_in_a_process_that_ends_with_it(ends_process: bool, tmp_path: Path) -> None:
    stop, heard = GracefulStop(), list[int]()
    signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    stop.ends_process = ends_process
    trainer = toy_trainer(tmp_path, [stop, RolloutCheckpoint()], steps=1)
    trainer.validate(ToyModule(), datamodule=ToyData(), verbose=False)
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM], "before training it ends the process as ever"
    trainer.fit(ToyModule(), datamodule=ToyData())
    signal.raise_signal(signal.SIGTERM)
    assert len(heard) == (1 if ends_process else 2)


def test_a_signal_in_the_closing_evaluation_is_heard_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are repeated while the process ends change nothing."""

    class Again(pl.Callback):
        def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
            signal.raise_signal(signal.SIGTERM)

    stop = GracefulStop()
    stop.ends_process = True
    trainer = toy_trainer(tmp_path, [Again(), stop, Again(), RolloutCheckpoint()], steps=1)
    trainer.fit(ToyModule(), datamodule=ToyData())
    with pytest.raises(SystemExit) as stopped:
        trainer.validate(ToyModule(stop_at(("validate", 1, 0), signal.SIGTERM)), datamodule=ToyData(), verbose=False)
    signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 0
    assert capsys.readouterr().err.count("SIGTERM: stopped. Training had ended and is saved") == 1
