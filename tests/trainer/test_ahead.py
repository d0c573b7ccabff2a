"""One step off: the next step's completions are made while this one trains, with older weights that everybody is told of."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from delta_lightning.corrections import NoCorrection, TruncatedImportance
from delta_lightning.errors import ConfigError, RunError
from delta_lightning.filters import ZeroVariance
from delta_lightning.samplers import HFSampler, RecordedSampler, RecordingSampler
from delta_lightning.trainer.ahead import Ahead, another_step
from delta_lightning.trainer.callbacks import GracefulStop, RolloutCheckpoint
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.watchdog import Limits
from support.ahead import STEPS, UPDATES, Watch, fit, make, same, trainer
from support.apart import ApartSampler, Log
from support.cli import Invoke, invoke, loads  # noqa: F401 - fixtures

Run = tuple[dict[str, Tensor], Path]
REFILL: dict[str, Any] = {"filters": [ZeroVariance()], "refill_rounds": 2}
pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    Log.clear()
    yield
    assert not sampling_threads(), "a thread was left behind"


def sampling_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("sampling rollout step")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("whole")
    return fit(folder)[0], folder


# What is trained on --------------------------------------------------------------------------------------------------


def test_off_nothing_is_sampled_ahead() -> None:
    parameters, watch = fit(parts={"one_step_off": False})
    assert [event for event in Log.events if event[0] == "sample" and event[2]] == [], "nothing in the background"
    assert watch.versions == [{step} for step in range(STEPS)]
    assert not any(name.startswith(("rollout/staleness", "seconds/wait", "seconds/ahead")) for name in watch.last[-1])
    in_place = fit(parts={"one_step_off": False, "sampler": HFSampler(threads=1)})[0]
    assert same(parameters, in_place), "a copy that is given each version samples what the model itself does"


def test_each_step_but_the_first_trains_on_the_weights_before() -> None:
    _, watch = fit(limit_val_batches=0)  # an evaluation would hand the weights over, too
    assert watch.versions == [{0}, {0}, {1}]
    assert [row["rollout/staleness_steps"] for row in watch.last] == [0, 1, 1]
    assert watch.last[0]["mismatch/max_abs_nats"] < 1e-4
    assert all(row["mismatch/mean_abs_nats"] > 0.01 for row in watch.last[1:]), "the staleness is measured"
    assert float((watch.weights[0] - 1).abs().max()) < 1e-4
    for weights in watch.weights[1:]:
        assert float((weights - 1).abs().max()) > 0.1 and float(weights.max()) <= 2, "the correction sees it"
    # The policy ratio is with the trainer's own log-probabilities of the present weights, not with the sampler's.
    assert [(row["update/ratio"], row["update/kl_nats"]) for row in watch.first] == [(1, 0)] * STEPS
    assert all(row["seconds/ahead_sample"] > 0 for row in watch.last[1:])
    assert [row["seconds/sample"] > 0 for row in watch.last] == [True, False, False], "only the first step waits for all"


def test_the_next_step_is_sampled_while_this_one_trains() -> None:
    """Each waits for the other, so that a run that did one after the other would never end."""
    sampled, trained = [threading.Event() for _ in range(STEPS)], [threading.Event() for _ in range(STEPS)]
    begun = iter(range(STEPS))

    def in_background(done: int) -> None:
        if done == 1:
            step = next(begun)
            sampled[step].set()
            assert trained[step].wait(60), "no update while the next step was sampled"

    def before_update(self: PolicyModule, batch: Any, batch_idx: int) -> Tensor:
        if self.current_epoch < STEPS - 1 and batch_idx == 1:
            assert sampled[self.current_epoch].wait(60), "nothing was sampled while this step was trained"
            trained[self.current_epoch].set()
        return original(self, batch, batch_idx)

    original = PolicyModule.training_step
    Log.in_background = in_background
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicyModule, "training_step", before_update)
        fit()
    order = [event for event in Log.events if event[0] in ("update", "sample", "train") and event != ("update", STEPS)]
    background = [order.index(("sample", version, True)) for version in range(STEPS - 1)]
    for version, place in enumerate(background):
        assert order.index(("train", version, 2)) > place > order.index(("update", version))
    assert order.count(("sample", STEPS - 1, True)) == 0, "the last step starts nothing"


@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"max_epochs": -1, "max_steps": 2 * UPDATES}, {"max_steps": UPDATES + 1}])
def test_the_last_step_starts_nothing(limit: dict[str, int]) -> None:
    _, watch = fit(limit_val_batches=0, **limit)
    assert len(watch.versions) == 2
    assert [event[1:] for event in Log.events if event[0] == "sample"] == [(0, False), (0, True)]


def test_another_step() -> None:
    assert another_step(3, 2, None, -1) and another_step(3, 2, -1, -1) and another_step(3, 2, 4, -1)
    assert not another_step(4, 2, 4, -1) and not another_step(3, 2, 9, 6) and another_step(3, 2, 9, 7)


def test_evaluation_between_changes_nothing(whole: Run) -> None:
    """It hands newer weights over, when what was begun has ended; what is trained on was sampled before."""
    assert any(event[:2] == ("sample", STEPS) for event in run_events()), "the evaluation after the last step"
    assert same(fit(limit_val_batches=0)[0], whole[0])


def test_an_evaluation_waits_for_the_thread() -> None:
    """One inside the step, while the sampler is busy: it has one user at a time."""
    Log.in_background = lambda done: time.sleep(0.02)  # the thread is slower than two micro-batches
    _, watch = fit(val_check_interval=2)
    assert watch.versions == [{0}, {0}, {1}]
    assert ("update", 0) in Log.events[3:], "the weights in the middle of the first step were evaluated"


def run_events() -> list[tuple[Any, ...]]:
    fit()
    return list(Log.events)


def test_refill_goes_on_with_the_present_weights() -> None:
    _, watch = fit(parts=REFILL)
    assert watch.versions[:2] == [{0}, {0, 1}] and {1} <= watch.versions[2] <= {1, 2}
    assert 0 < watch.last[1]["rollout/staleness_steps"] < 1
    assert watch.last[1]["rollout/refill_rounds"] >= 1


# Resuming ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(1, STEPS * UPDATES))
def test_resume_is_bitwise(whole: Run, stop: int) -> None:
    parameters, watch = fit(checkpoint=whole[1] / f"step={stop}.ckpt")
    assert same(parameters, whole[0])
    assert all(step == {version} for step, version in zip(reversed(watch.versions), (1, 0), strict=False))


def test_a_checkpoint_holds_what_was_sampled_ahead(whole: Run) -> None:
    for stop in range(1, STEPS * UPDATES + 1):
        data = torch.load(whole[1] / f"step={stop}.ckpt", weights_only=True)["PromptData"]
        following = (stop - 1) // UPDATES + 1  # of the step that the optimiser step `stop` is part of
        assert data["ahead"]["step"] == following if following < STEPS else "ahead" not in data


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resume_is_bitwise_with_refill(stop: int, tmp_path: Path) -> None:
    want, _ = fit(tmp_path, parts=REFILL)
    assert same(fit(checkpoint=tmp_path / f"step={stop}.ckpt", parts=REFILL)[0], want)


def test_without_it_a_resumed_run_drops_what_was_sampled_ahead(whole: Run, capsys: pytest.CaptureFixture[str]) -> None:
    _, watch = fit(checkpoint=whole[1] / "step=2.ckpt", parts={"one_step_off": False})
    assert watch.versions == [{1}, {2}]
    assert capsys.readouterr().err.count("rollout step 2: completions sampled ahead are dropped") == 1


def test_a_checkpoint_without_goes_on_on_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, parts={"one_step_off": False}, max_epochs=1)
    _, watch = fit(checkpoint=tmp_path / "step=2.ckpt")
    assert watch.versions == [{1}, {1}]
    assert capsys.readouterr().err.count("rollout step 2: nothing was sampled ahead") == 1


def test_other_prompts_than_those_that_were_sampled_are_refused(whole: Run) -> None:
    with pytest.raises(ConfigError, match=r"wanted the prompts and the group size .* --model.one_step_off=false"):
        fit(checkpoint=whole[1] / "step=2.ckpt", parts={"seed": 1})
    with pytest.raises(ConfigError, match=r"got 8 prompts x 2 where 32 completions were sampled"):
        fit(checkpoint=whole[1] / "step=2.ckpt", parts={"completions_per_prompt": 2})


def test_a_recording_can_be_replayed(whole: Run, tmp_path: Path) -> None:
    recording = RecordingSampler(path=str(tmp_path / "tape"), sampler=ApartSampler())
    assert same(fit(parts={"sampler": recording})[0], whole[0])
    Log.clear()
    assert same(fit(parts={"sampler": RecordedSampler(path=str(tmp_path / "tape"))})[0], whole[0])
    assert not [event for event in Log.events if event[0] == "sample"]


# What goes wrong -----------------------------------------------------------------------------------------------------


def fail_at(step: int, error: BaseException) -> None:
    """Raise after a few completions of rollout step `step`, from 1."""
    calls = []

    def fail(done: int) -> None:
        calls.append(done)
        if calls.count(0) == step and done == 3:
            raise error

    Log.in_background = fail


def test_an_error_in_the_background_ends_the_run_with_its_phase(whole: Run, tmp_path: Path) -> None:
    fail_at(2, RunError("the engine is gone"))
    with pytest.raises(RunError, match=r"^sampling rollout step 3 ahead: the engine is gone$"):
        fit(tmp_path)
    # The updates that were made meanwhile are saved, without completions of the step that could not be sampled.
    last = tmp_path / f"step={2 * UPDATES}.ckpt"
    assert "ahead" not in torch.load(last, weights_only=True)["PromptData"]
    Log.clear()
    assert fit(checkpoint=last)[1].versions == [{2}]


def test_a_bug_in_the_background_keeps_its_traceback() -> None:
    fail_at(1, ZeroDivisionError("planted"))
    with pytest.raises(ZeroDivisionError, match="planted") as caught:
        fit()
    assert caught.value.__notes__ == ["raised while sampling rollout step 2 ahead"]


def test_silence_ends_in_an_error_that_names_the_phase(capfd: pytest.CaptureFixture[str]) -> None:
    def hang(done: int) -> None:
        while done == 3:
            time.sleep(0.01)

    Log.in_background = hang
    with pytest.raises(RunError, match=r"sampling rollout step 2 ahead: sampling: no sign of life for 3 s"):
        fit(parts={"limits": Limits(sample_seconds=3.0)})
    assert "in hang" in capfd.readouterr().err, "the stacks of all threads are printed"


def test_a_thread_that_cannot_be_interrupted_is_left_behind() -> None:
    reads, writes = os.pipe()

    def hang(done: int) -> None:
        if done == 3:
            ctypes.CDLL(None).read(reads, ctypes.create_string_buffer(1), 1)

    Log.in_background = hang
    module, data = make(limits=Limits(sample_seconds=3.0, grace_seconds=0.5))
    with pytest.raises(RunError, match="sampling rollout step 2 ahead: no sign of life, and it could not be interrupted"):
        trainer([]).fit(module, data)
    assert sampling_threads(), "it is still there"
    os.write(writes, b"x")
    module.close()
    assert not sampling_threads()
    os.close(reads)
    os.close(writes)


def test_closing_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C without a callback that handles it, while the thread samples."""
    begun = threading.Event()

    def hold(done: int) -> None:
        while done == 3:
            begun.set()
            time.sleep(0.01)

    def interrupted(self: PolicyModule, batch: Any, batch_idx: int) -> Tensor:
        assert begun.wait(60)
        raise KeyboardInterrupt

    Log.in_background = hold
    monkeypatch.setattr(PolicyModule, "training_step", interrupted)
    monkeypatch.setattr("delta_lightning.trainer.ahead.PATIENCE", 0.5)
    module, data = make()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer([]).fit(module, data)
    assert sampling_threads()
    module.close()
    assert not sampling_threads()
    assert Log.events[-2:] == [("sampled", 0, True, 3), ("close",)], "the thread ends before the session is closed"


def test_closing_says_what_nobody_heard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failed = threading.Event()

    def fail(done: int) -> None:
        failed.set()
        raise RunError("the engine is gone")

    def break_down(self: PolicyModule, batch: Any, batch_idx: int) -> Tensor:
        assert failed.wait(60)
        raise RunError("something else")

    Log.in_background = fail
    monkeypatch.setattr(PolicyModule, "training_step", break_down)
    with pytest.raises(RunError, match="something else"):
        fit()
    assert "sampling rollout step 2 ahead had failed too: the engine is gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "name"), [("update", "step-1-update-1.ckpt"), ("ahead", "step-1.ckpt"), ("score", "step-1.ckpt")]
)
def test_a_stopped_run_goes_on_bitwise(
    where: str, name: str, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in an update, while the next step is waited for, and while a step is scored."""

    class Stop(Watch):
        def on_train_batch_end(self, one: Any, module: Any, *args: Any) -> None:
            super().on_train_batch_end(one, module, *args)
            if where == "update" and one.current_epoch == 1:
                signal.raise_signal(signal.SIGTERM)

    def late(done: int) -> None:
        if where == "ahead" and done == 3:
            assert waits.wait(60)
            signal.raise_signal(signal.SIGTERM)
        if where == "score" and done == 0 and ("update", 1) in Log.events:
            begun.set()
            assert told.wait(60)

    def wait(self: Ahead, *args: Any) -> None:
        waits.set()
        usual_wait(self, *args)

    def guarded() -> None:
        if where == "score" and any(one.name.startswith("sampling rollout step 3") for one in sampling_threads()):
            assert begun.wait(60)
            told.set()
            signal.raise_signal(signal.SIGTERM)

    Log.in_background = late
    waits, begun, told, usual_wait = threading.Event(), threading.Event(), threading.Event(), Ahead.wait
    monkeypatch.setattr(Ahead, "wait", wait)
    module, data = make()
    run = trainer([GracefulStop(), Stop(), RolloutCheckpoint()], default_root_dir=tmp_path, enable_checkpointing=True)
    usual = PolicyModule.make_rollouts

    def make_rollouts(self: PolicyModule, step: int, drawn: int) -> Any:
        before = self.progress.guard
        self.progress.guard = lambda: (guarded(), before())[1]
        try:
            return usual(self, step, drawn)
        finally:
            self.progress.guard = before

    monkeypatch.setattr(PolicyModule, "make_rollouts", make_rollouts)
    with pytest.raises(SystemExit) as stopped:
        run.fit(module, data)
    module.close()
    monkeypatch.undo()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert stopped.value.code == 0
    Log.clear()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [name]
    assert same(fit(checkpoint=tmp_path / "checkpoints" / name)[0], whole[0])


# Configuration -------------------------------------------------------------------------------------------------------


def test_a_sampler_in_the_trainers_process_is_refused(invoke: Invoke, loads: list[str]) -> None:  # noqa: F811
    outcome = invoke("--model.one_step_off=true")
    assert outcome.code == 2 and not loads
    assert "model.one_step_off" in outcome.err and "true with HFSampler" in outcome.err
    assert "VLLMServerSampler" in outcome.err


def test_a_recorder_is_what_it_wraps(tmp_path: Path) -> None:
    make(sampler=RecordingSampler(path=str(tmp_path), sampler=ApartSampler()))
    with pytest.raises(ConfigError, match="true with RecordingSampler"):
        make(sampler=RecordingSampler(path=str(tmp_path), sampler=HFSampler()))


def test_people_are_told_what_nobody_corrects() -> None:
    [line] = Ahead(enabled=True).notes(NoCorrection())
    assert "TruncatedImportance" in line and "mismatch/*" in line
    assert Ahead(enabled=True).notes(TruncatedImportance()) == Ahead().notes(NoCorrection()) == []


def test_without_anything_ahead_there_is_nothing_to_wait_for() -> None:
    ahead, clock = Ahead(enabled=True), PhaseClock()
    ahead.wait(clock, Progress())
    assert clock.take() == {} and not ahead.ticked(1, 2)
    ahead.close(Progress())
    ahead.close(Progress())
