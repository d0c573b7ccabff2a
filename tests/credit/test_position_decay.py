from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from delta_lightning.credit import PositionDecay
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import make_batch, mixed, scored
from support.reference_credit import decay, mean_one
from support.token_rows import close, rows_of

NINE_TENTHS = -math.log(2) / math.log(0.9)


@pytest.mark.parametrize("normaliser", ["sequence", "batch", "none"])
@pytest.mark.parametrize("direction", ["late", "early"])
@pytest.mark.parametrize("half_life", [0.5, 3.0, 1e6])
def test_equals_the_reference_and_obeys_the_laws(
    direction: Literal["late", "early"], half_life: float, normaliser: Literal["sequence", "batch", "none"]
) -> None:
    part, world = PositionDecay(direction=direction, half_life=half_life, normaliser=normaliser), mixed()
    check_credit(part)
    wanted = mean_one([decay(len(row), direction, half_life) for row in rows_of(world.logprobs_BT, world)], normaliser)
    close(rows_of(part.credit(View(world)).scale_BT, world), wanted, 1e-6)


def test_golden() -> None:
    """gamma lambda = 0.9 over five tokens."""
    world = scored(make_batch([5], rewards=[1.0], groups=[0]), [1.0])
    late = PositionDecay(half_life=NINE_TENTHS, normaliser="none").credit(View(world)).scale_BT
    close(rows_of(late, world), [[0.6561, 0.729, 0.81, 0.9, 1.0]], 1e-6)
    early = PositionDecay(direction="early", half_life=NINE_TENTHS, normaliser="none").credit(View(world)).scale_BT
    close(rows_of(early, world), [[1.0, 0.9, 0.81, 0.729, 0.6561]], 1e-6)


def test_positions_count_trained_tokens() -> None:
    """A masked token inside an answer takes no place."""
    world = scored(make_batch([4], rewards=[1.0], groups=[0]), [1.0])
    world.batch.loss_mask_BT[0, 3] = False
    scale_BT = PositionDecay(half_life=1, normaliser="none").credit(View(world)).scale_BT
    assert scale_BT[0, 2:6].tolist() == [0.25, 0.0, 0.5, 1.0]


def test_very_long_answers_stay_finite() -> None:
    world = scored(make_batch([20_000], rewards=[1.0], groups=[0]), [1.0])
    for direction in ("late", "early"):
        scale_BT = PositionDecay(direction=direction, half_life=0.5).credit(View(world)).scale_BT
        assert bool(torch.isfinite(scale_BT).all()) and float(scale_BT.sum()) == pytest.approx(20_000, rel=1e-5)


@pytest.mark.parametrize("options", [{"direction": "middle"}, {"half_life": 0}, {"normaliser": "token"}])
def test_refusals(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"credit.PositionDecay"):
        PositionDecay(**options)  # type: ignore[arg-type]
