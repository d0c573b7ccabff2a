"""A run that is killed (-9) anywhere and started again with the same command ends bitwise as one that was never killed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

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
def test_killed_again_and_again(whole: Whole, tmp_path: Path) -> None:
    """At random moments of its own time, until it comes through; each start has a little longer."""
    draws, killed = random.Random(2), 0
    for start in range(20):
        ended = run(tmp_path, after=draws.uniform(2.0, 4.0) + start / 2)
        killed += ended.codes == [-9]
        if ended.codes == [0]:
            break
    assert killed and ended.codes == [0], ended.printed
    assert differences(result(tmp_path), result(whole())) == []
