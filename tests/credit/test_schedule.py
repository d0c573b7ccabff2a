from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Delta, Schedule, Uniform
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import degenerate, mixed
from support.toy_credit import Answers, AtStep, Shifting, of_tokens


def test_weights() -> None:
    assert [Schedule(start_step=2, ramp_steps=4).weight(step) for step in range(8)] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert [Schedule(start_step=2, ramp_steps=0).weight(step) for step in range(4)] == [0, 0, 1, 1]
    assert [Schedule(start_step=0, ramp_steps=0).weight(step) for step in range(2)] == [1, 1]
    assert [Schedule().weight(step) for step in (0, 5, 20, 21)] == [0, 0.25, 1, 1]


@pytest.mark.parametrize("step", [0, 3, 7])
@pytest.mark.parametrize("assigner", [Delta(), Uniform(), Shifting()], ids=lambda part: type(part).__name__)
def test_equals_the_reference_and_obeys_the_laws(assigner: CreditAssigner, step: int) -> None:
    part = Schedule(assigner=assigner, start_step=1, ramp_steps=4)
    check_credit(AtStep(assigner=part, step=step))
    weight = {0: 0.0, 3: 0.5, 7: 1.0}[step]
    view = View(mixed(), step=step)
    inner, got = assigner.credit(view), part.credit(view)
    wanted = [1 + weight * (value - 1) for value in of_tokens(inner.scale_BT, view)]
    assert of_tokens(got.scale_BT, view) == pytest.approx(wanted, rel=1e-12)
    if inner.shift_BT is None:
        assert got.shift_BT is None
    else:
        assert got.shift_BT is not None
        assert of_tokens(got.shift_BT, view) == pytest.approx([weight * value for value in of_tokens(inner.shift_BT, view)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact(dtype: torch.dtype) -> None:
    part, world = Schedule(start_step=1, ramp_steps=4), mixed(dtype)
    assert torch.equal(part.credit(View(world, step=1)).scale_BT, world.batch.loss_mask_BT.float())
    assert torch.equal(part.credit(View(world, step=5)).scale_BT, Delta().credit(View(world)).scale_BT)


def test_the_assigner_runs_only_where_it_counts() -> None:
    inner = Answers(value=False)
    part = Schedule(assigner=inner, start_step=2, ramp_steps=2)
    for step in range(5):
        part.credit(View(mixed(), step=step))
    assert inner.calls == [3, 4]


def test_needs_are_those_of_the_run() -> None:
    assert Schedule(start_step=1000).needs() == Delta().needs()


def test_degenerate_batches_are_uniform() -> None:
    for name in ("no advantage", "positive side only", "one token", "all tokens masked", "no rows"):
        for step in (0, 10, 20):
            world = degenerate()[name]
            assert bool((Schedule().credit(View(world, step=step)).scale_BT == world.batch.loss_mask_BT).all()), name


@pytest.mark.parametrize("field", ["start_step", "ramp_steps"])
def test_refuses(field: str) -> None:
    with pytest.raises(ConfigError, match=f"credit.Schedule.{field}: wanted at least 0, got -1"):
        Schedule(**{field: -1})  # type: ignore[arg-type]
