"""Gradients that are not finite: nothing of them reaches weights or optimiser, they are counted, and too many end the run."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.losses import ClippedSurrogate
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.gradients import Gradients
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.ranks import Ranks
from support.runs import MICRO, STEPS, UPDATES, run
from support.world import run_ranks

pytestmark = pytest.mark.timeout(300)


def parameters(*values: list[float]) -> torch.nn.Module:
    """A module whose parameters have these gradients, and one that is frozen."""
    module = torch.nn.Module()
    for index, gradient in enumerate(values):
        parameter = torch.nn.Parameter(torch.ones(len(gradient)))
        parameter.grad = torch.tensor(gradient)
        module.register_parameter(f"p{index}", parameter)
    module.register_parameter("frozen", torch.nn.Parameter(torch.ones(3), requires_grad=False))
    return module


def silent(line: str) -> None: ...


@pytest.mark.parametrize("limit", [0.0, 0.5, 100.0])
def test_clips_by_the_global_norm(limit: float) -> None:
    module = parameters([3.0, 4.0], [12.0])
    norm = Gradients(max_norm=limit, max_skipped=0).clip(module, step=0, say=silent)
    whole = np.array([3.0, 4.0, 12.0], dtype=np.float64)
    want = math.sqrt((whole**2).sum())
    assert float(norm) == pytest.approx(want, rel=1e-6)
    scale = min(1.0, limit / want) if limit else 1.0
    got = torch.cat([p.grad for p in module.parameters() if p.grad is not None])
    np.testing.assert_allclose(got.numpy(), whole * scale, rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_leaves_no_gradient_that_is_not_finite(bad: float) -> None:
    module, lines = parameters([3.0, 4.0], [bad]), []
    gradients = Gradients(max_norm=1.0, max_skipped=1)
    assert not math.isfinite(gradients.clip(module, step=7, say=lines.append))
    assert all(p.grad is None for p in module.parameters())
    assert (gradients.skipped, gradients.in_a_row) == (1, 1)
    assert len(lines) == 1 and "at optimiser step 7" in lines[0] and "1 in a row, 1 in all" in lines[0]


def test_counts_in_all_and_in_a_row_and_ends_the_run_beyond_the_limit() -> None:
    gradients = Gradients(max_norm=1.0, max_skipped=2)
    for index, value in enumerate([math.nan, 1.0, math.inf, math.nan]):
        gradients.clip(parameters([value]), step=index, say=silent)
    assert gradients.state_dict() == {"skipped": 3, "in_a_row": 2}
    resumed = Gradients(max_norm=1.0, max_skipped=2)
    resumed.load_state_dict(gradients.state_dict())
    with pytest.raises(RunError, match=r"3 in a row, 4 in all.*max_skipped_updates is 2"):
        resumed.clip(parameters([math.nan]), step=4, say=silent)


@pytest.mark.parametrize("options", [{"max_norm": -1.0}, {"max_skipped": -1}])
def test_refuses_limits_below_0(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\.max_"):
        Gradients(**({"max_norm": 1.0, "max_skipped": 0} | options))


# Whole runs --------------------------------------------------------------------------------------------------------------

calls = [0]


@dataclass(frozen=True, kw_only=True)
class Planted(ClippedSurrogate):
    """The loss of some micro-batches, by number, is a multiple that is not finite, on the last rank alone."""

    factors: dict[int, float]

    def per_token(self, experience: Any, scores: Any, statistics: Any) -> Tensor:
        losses, factor = super().per_token(experience, scores, statistics), self.factors.get(calls[0])
        calls[0] += 1
        ranks = Ranks.current()
        return losses if factor is None or ranks.rank < ranks.size - 1 else losses * factor


class Compare(pl.Callback):
    """For each optimiser step: whether parameters, and the optimiser's state, are to the bit what they were before."""

    def __init__(self) -> None:
        self.same: list[tuple[bool, bool]] = []
        self.skipped: list[int] = []
        self.logged: list[float] = []  # after each rollout step
        self._before: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self._before = self._everything(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch.index + 1) % MICRO:
            return
        after, count = self._everything(trainer, pl_module), len(list(pl_module.policy.parameters()))
        equal = [torch.equal(a, b) for a, b in zip(self._before, after, strict=False)]
        kept = len(self._before) == len(after)  # the first update makes the state
        self.same.append((all(equal[:count]), kept and all(equal[count:])))
        self.skipped.append(pl_module.gradients.skipped)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.logged.append(float(trainer.callback_metrics["update/skipped"]))

    def _everything(self, trainer: pl.Trainer, module: Any) -> list[Tensor]:
        """Parameters, then moments and step counts."""
        optimizer = trainer.optimizers[0]
        state = [value for p in module.policy.parameters() for value in optimizer.state.get(p, {}).values()]
        return [local(value).clone() for value in [*module.policy.parameters(), *state]]


def local(value: Tensor) -> Tensor:
    value = value.detach()
    return value.to_local() if hasattr(value, "to_local") else value


Seen = tuple[list[tuple[bool, bool]], list[int], list[float]]


def planted(strategy: Any, factors: dict[int, float], **options: Any) -> Seen:
    calls[0], watch = 0, Compare()
    run(
        strategy, devices=Ranks.current().size, loss=Planted(factors=factors),
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.1),
        callbacks=[watch, *options.pop("callbacks", [])], **options,
    )  # fmt: skip
    return watch.same, watch.skipped, watch.logged


TWO = {2 * MICRO: math.nan, 3 * MICRO + 1: math.inf}  # a micro-batch of the third update, and one of the fourth


def left_out(seen: Seen) -> None:
    bad = [False, False, True, True, False, False]
    assert len(bad) == STEPS * UPDATES
    assert seen == ([(skipped, skipped) for skipped in bad], [0, 0, 1, 2, 2, 2], [0, 2, 2])


def test_on_one_device() -> None:
    left_out(planted("auto", TWO))


def on_ranks(folder: Path) -> dict[str, Any]:
    strategies: list[Any] = ["ddp", "fsdp2", FSDP2Strategy(compute_dtype="bfloat16", cpu_offload=True)]
    found: dict[str, Any] = {str(index): planted(one, TWO) for index, one in enumerate(strategies)}
    calls[0] = 0
    with pytest.raises(RunError) as said:
        planted("fsdp2", {update * MICRO: math.nan for update in (1, 3, 4)}, max_skipped_updates=1)
    return found | {"said": str(said.value)}


def test_on_two_ranks(tmp_path: Path) -> None:
    """Rank 0 of two has finite losses; it leaves the update out all the same."""
    for found in run_ranks(2, on_ranks, tmp_path):
        for index in "012":
            left_out(found[index])
        assert "at optimiser step 4" in found["said"] and "2 in a row, 3 in all" in found["said"]


class Save(pl.Callback):
    """A checkpoint after an update, by number."""

    def __init__(self, after: int, path: Path) -> None:
        self._after, self._path = after, path

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self._after and (batch.index + 1) % MICRO == 0:
            trainer.save_checkpoint(self._path)


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    planted("auto", TWO, callbacks=[Save(4, tmp_path / "4.ckpt")], folder=tmp_path)
    calls[0], watch = 0, Compare()
    run(
        checkpoint=tmp_path / "4.ckpt", callbacks=[watch], loss=Planted(factors={}),
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.1), folder=tmp_path,
    )  # fmt: skip
    assert watch.skipped == [2, 2] and watch.logged == [2]


# Memory ------------------------------------------------------------------------------------------------------------------


class GradientBytes(pl.Callback):
    """Bytes of this rank's gradients: as callbacks see them after each optimiser step, and of those what lives at a rollout."""

    def __init__(self) -> None:
        self.after: list[int] = []
        self.living: list[int] = []
        self._seen: list[weakref.ref[torch.UntypedStorage]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch.ends:
            storages = storages_of([p.grad for p in pl_module.policy.parameters() if p.grad is not None])
            self._seen = [weakref.ref(one) for one in storages]
            self.after.append(sum(one.nbytes() for one in storages))

    def rollout(self) -> None:
        storages = [one() for one in self._seen]
        self.living.append(sum(one.nbytes() for one in storages if one is not None))


def storages_of(tensors: Sequence[Tensor]) -> list[torch.UntypedStorage]:
    """Each once: under fsdp2 the gradients of a layer share one."""
    found = [local(tensor).untyped_storage() for tensor in tensors]
    return list({one.data_ptr(): one for one in found}.values())


def gradient_bytes(strategy: Any) -> tuple[list[int], list[int], int]:
    """Those that live as rollout steps begin, those after optimiser steps, and this rank's parameters."""
    watch, make, parameters = GradientBytes(), PolicyModule.make_rollouts, [0]

    def watched(module: PolicyModule, step: int, drawn: int) -> Any:
        watch.rollout()
        parameters[0] = sum(one.nbytes() for one in storages_of(list(module.policy.parameters())))
        return make(module, step, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicyModule, "make_rollouts", watched)
        run(strategy, devices=Ranks.current().size, callbacks=[watch])
    return watch.living, watch.after, parameters[0]


def none_stay(found: tuple[list[int], list[int], int]) -> None:
    living, after, parameters = found
    assert living == [0] * STEPS
    assert after == [parameters] * (STEPS * UPDATES)


def test_none_stays_through_a_rollout_and_callbacks_see_those_of_the_update() -> None:
    none_stay(gradient_bytes("auto"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_none_stays_on_two_ranks(strategy: str) -> None:
    for found in run_ranks(2, gradient_bytes, strategy):
        none_stay(found)
