"""One step off with an adapter: the engine's copy is a plain model of merged weights, and a run is as exact as any other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import delta_lightning.strategies  # noqa: F401 -- makes fsdp2 known
from delta_lightning.models.lora import LoRA
from support.ahead import STEPS, UPDATES, Watch, close_to, fit, same
from support.apart import Log
from support.world import run_ranks

ADAPTED: dict[str, Any] = {"adapter": LoRA(rank=2, alpha=4.0)}
pytestmark = [
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


@pytest.fixture(autouse=True)
def _clean() -> None:
    Log.clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Watch, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return *fit(folder, parts=ADAPTED), folder


def test_the_engine_samples_with_the_adapter_of_the_step_before(whole: Any) -> None:
    parameters, watch, _ = whole
    assert watch.versions == [{0}, {0}, {1}]
    assert watch.last[0]["mismatch/max_abs_nats"] < 1e-4, "merged weights are the policy"
    assert all(row["mismatch/mean_abs_nats"] > 0.01 for row in watch.last[1:]), "and the adapter moved"
    assert all(row["sync/probe_max_nats"] < 1e-4 and row["sync/moved_max_nats"] > 0.01 for row in watch.last[1:])
    assert [(row["update/ratio"], row["update/kl_nats"]) for row in watch.first] == [(1, 0)] * STEPS
    assert any(".lora_B." in name and bool(value.any()) for name, value in parameters.items())


def test_it_ends_at_the_same_bits_however_fast_either_side_is(whole: Any) -> None:
    Log.in_background = lambda done: time.sleep(0.01)
    assert same(fit(parts=ADAPTED)[0], whole[0])


@pytest.mark.parametrize("stop", range(1, STEPS * UPDATES))
def test_resume_is_bitwise(whole: Any, stop: int) -> None:
    parameters, watch = fit(checkpoint=whole[2] / f"step={stop}.ckpt", parts=ADAPTED)
    assert same(parameters, whole[0])
    assert all(step == {version} for step, version in zip(reversed(watch.versions), (1, 0), strict=False))


def on_a_rank() -> dict[str, tuple[dict[str, Tensor], list[set[int]]]]:
    ended = {strategy: fit(parts=ADAPTED, devices=2, strategy=strategy) for strategy in ("ddp", "fsdp2")}
    return {strategy: (parameters, watch.versions) for strategy, (parameters, watch) in ended.items()}


def test_two_ranks_replicated_and_sharded_end_where_one_does(whole: Any) -> None:
    first, second = run_ranks(2, on_a_rank)
    for strategy, (parameters, versions) in first.items():
        assert versions == [{0}, {0}, {1}] and same(parameters, second[strategy][0])
        assert close_to(whole[0], parameters), strategy
