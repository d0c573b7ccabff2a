"""One step off on several ranks: they end where one does, go on from its checkpoints, and fail together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from delta_lightning.errors import RunError
from support.ahead import close_to, fit, same
from support.apart import Log
from support.world import run_ranks

Run = tuple[dict[str, Tensor], Path]
pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("whole")
    return fit(folder)[0], folder


def on_a_rank(checkpoint: Path) -> tuple[Any, Any, str]:
    """A whole run, one that goes on from a checkpoint of one rank, and one in which the second rank's engine fails."""

    def fit_here(checkpoint: Path | None) -> tuple[dict[str, Tensor], list[set[int]]]:
        parameters, watch = fit(checkpoint=checkpoint, devices=2, strategy="ddp")
        return parameters, watch.versions

    whole, resumed = fit_here(None), fit_here(checkpoint)

    def fail(done: int) -> None:
        if done == 3 and torch.distributed.get_rank() == 1:
            raise RunError("the engine is gone")

    Log.in_background = fail
    with pytest.raises(RunError) as caught:
        fit_here(None)
    return whole, resumed, str(caught.value)


@pytest.fixture(scope="module")
def two_ranks(whole: Run) -> list[Any]:
    return run_ranks(2, on_a_rank, whole[1] / "step=2.ckpt")


def test_two_ranks_end_where_one_does(whole: Run, two_ranks: list[Any]) -> None:
    (first, versions), (second, _) = (results[0] for results in two_ranks)
    assert versions == [{0}, {0}, {1}] and same(first, second) and close_to(whole[0], first)


def test_a_checkpoint_between_steps_goes_on_on_any_number_of_ranks(whole: Run, two_ranks: list[Any]) -> None:
    (first, versions), (second, _) = (results[1] for results in two_ranks)
    assert versions == [{0}, {1}] and same(first, second) and close_to(whole[0], first)


def test_the_failure_of_one_rank_is_raised_on_all(two_ranks: list[Any]) -> None:
    assert [results[2] for results in two_ranks] == [
        "sampling rollout step 2 ahead: rank 1: RunError: the engine is gone",
        "sampling rollout step 2 ahead: the engine is gone",
    ]
