"""A run that gets a signal anywhere, -9 too, and is started again with the same command ends bitwise as one that got none."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from delta_lightning.trainer.callbacks.manifest import damage
from support.kill_drill import differences, drawn, left_running, result, run

SHARDED = ("--trainer.devices=2", "--trainer.strategy=fsdp2")
REPLICATED = ("--trainer.devices=2", "--trainer.strategy=ddp")

Whole = Callable[..., Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Folder of a run with these options that nobody kills; made once."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*options: str, ranks: int = 1) -> Path:
        if options not in made:
            folder = tmp_path_factory.mktemp("whole")
            ended = run(folder, *options, ranks=ranks)
            assert ended.codes == [0] * ranks, ended.printed
            made[options] = folder
        return made[options]

    return make


def drill(folder: Path, want: Path, *options: str, ranks: int, kill: str, after: float | None = None) -> None:
    first = run(folder, *options, ranks=ranks, kill=kill, after=after)
    assert -9 in first.codes, f"{kill} was never reached: {first.printed}"
    assert left_running(folder) == []
    second = run(folder, *options, ranks=ranks)
    assert second.codes == [0] * ranks, second.printed
    assert differences(result(folder), result(want)) == []
    assert left_running(folder) == []


@pytest.mark.parametrize("kill", ["updating:6:0", "rename:2:0"])
def test_one_rank(whole: Whole, tmp_path: Path, kill: str) -> None:
    """In the middle of an optimiser step; and when the second checkpoint is complete but not yet in its place."""
    drill(tmp_path, whole(), ranks=1, kill=kill)


def test_two_ranks_with_a_sharded_model(whole: Whole, tmp_path: Path) -> None:
    """Rank 1 dies while it writes its part of the second checkpoint."""
    drill(tmp_path, whole(*SHARDED, ranks=2), *SHARDED, ranks=2, kill="write:2:1")


def test_sigterm_on_one_of_two_ranks_gives_sampling_up_on_both(whole: Whole, tmp_path: Path) -> None:
    """In the first step already: the evaluation before it is not lost."""
    want = whole(*SHARDED, ranks=2)
    stopped = run(tmp_path, *SHARDED, ranks=2, kill="sampling:40:1:SIGTERM")
    assert stopped.codes == [0, 0], stopped.printed
    assert stopped.printed.count("Stopped; checkpoint: ") == 1
    [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
    assert checkpoint.name == "step-0.ckpt" and damage(checkpoint) is None
    assert left_running(tmp_path) == []
    resumed = run(tmp_path, *SHARDED, ranks=2)
    assert resumed.codes == [0, 0] and differences(result(tmp_path), result(want)) == [], resumed.printed


def test_a_held_out_evaluation_that_was_given_up_is_had_all_the_same(whole: Whole, tmp_path: Path) -> None:
    """After the second rollout step: with a row in the metrics, once, as if it had not been given up."""
    stopped = run(tmp_path, kill="evaluating:3:0:SIGTERM")
    assert stopped.codes == [0] and "a resume begins with it" in stopped.printed, stopped.printed
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-2.ckpt"]
    resumed = run(tmp_path)
    assert resumed.codes == [0] and differences(result(tmp_path), result(whole())) == [], resumed.printed


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Variables of a job, and an `scontrol` that notes what it is asked."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    return {"SLURM_JOB_ID": "71", "PATH": f"{program.parent}:{os.environ['PATH']}"}


def test_slurms_signal_saves_and_requeues(whole: Whole, tmp_path: Path, slurm: dict[str, str]) -> None:
    """In the first update of the second step: it is finished, the rest of the step is in the checkpoint."""
    stopped = run(tmp_path, kill="updating:5:0:SIGUSR1", **slurm)
    assert stopped.codes == [0], stopped.printed
    assert (tmp_path / "asked").read_text() == "requeue 71\n"
    assert "SLURM job 71 is requeued" in stopped.printed
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-1-update-1.ckpt"]
    resumed = run(tmp_path, **slurm)
    assert resumed.codes == [0] and differences(result(tmp_path), result(whole())) == [], resumed.printed


def test_a_stop_waits_no_longer_than_its_grace(tmp_path: Path, slurm: dict[str, str]) -> None:
    """The process is held up in an update; it ends with the checkpoint before, and the job is requeued all the same."""
    begun = time.monotonic()
    stopped = run(tmp_path, "--stop.grace_seconds=1", kill="updating:5:0:SIGUSR1:200", **slurm)
    assert stopped.codes == [0] and time.monotonic() - begun < 150
    assert "No point to stop at within stop.grace_seconds=1" in stopped.printed and "is step-1.ckpt." in stopped.printed
    assert (tmp_path / "asked").read_text() == "requeue 71\n"
    [checkpoint] = (tmp_path / "run" / "checkpoints").iterdir()
    assert checkpoint.name == "step-1.ckpt" and damage(checkpoint) is None
    assert left_running(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kill", drawn(0, 20, ranks=1))
def test_one_rank_at_random_points(whole: Whole, tmp_path: Path, kill: str) -> None:
    drill(tmp_path, whole(), ranks=1, kill=kill)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [SHARDED, REPLICATED], ids=["fsdp2", "ddp"])
@pytest.mark.parametrize("kill", drawn(1, 20, ranks=2))
def test_two_ranks_at_random_points(whole: Whole, tmp_path: Path, kill: str, strategy: tuple[str, ...]) -> None:
    drill(tmp_path, whole(*strategy, ranks=2), *strategy, ranks=2, kill=kill)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [SHARDED, REPLICATED], ids=["fsdp2", "ddp"])
@pytest.mark.parametrize("phase", ["sampling:50", "verifying:8", "scoring:3", "updating:5", "updating:6"])
@pytest.mark.parametrize("rank", [0, 1])
def test_two_ranks_stopped_by_a_signal_on_one(
    whole: Whole, tmp_path: Path, phase: str, rank: int, strategy: tuple[str, ...]
) -> None:
    want = whole(*strategy, ranks=2)
    stopped = run(tmp_path, *strategy, ranks=2, kill=f"{phase}:{rank}:SIGTERM")
    assert stopped.codes == [0, 0] and stopped.printed.count("Stopped; checkpoint: ") == 1, stopped.printed
    resumed = run(tmp_path, *strategy, ranks=2)
    assert resumed.codes == [0, 0] and differences(result(tmp_path), result(want)) == [], resumed.printed


@pytest.mark.slow
def test_killed_again_and_again(whole: Whole, tmp_path: Path) -> None:
    """At random moments, from a fifth of its own time on, until it comes through; each start has a little longer."""
    began = time.monotonic()
    assert run(tmp_path / "timed").codes == [0]
    seconds, draws, killed = time.monotonic() - began, random.Random(2), 0
    for start in range(20):
        ended = run(tmp_path, after=seconds * (0.2 + 0.1 * start) * draws.uniform(0.8, 1.2))
        killed += ended.codes == [-9]
        if ended.codes == [0]:
            break
    assert killed and ended.codes == [0], ended.printed
    assert differences(result(tmp_path), result(whole())) == []
