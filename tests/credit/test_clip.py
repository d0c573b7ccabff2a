from __future__ import annotations

import math

import pytest
import torch

from delta_lightning.credit import Clip, Delta, Uniform
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import degenerate, mixed
from support.toy_credit import Shifting, of_tokens


@pytest.mark.parametrize("bounds", [(0.5, 2.0), (0.9, 1.05), (1.0, math.inf), (0.0, 0.0)])
@pytest.mark.parametrize("assigner", [Delta(), Uniform(), Shifting()], ids=lambda part: type(part).__name__)
def test_equals_the_reference_and_obeys_the_laws(assigner: CreditAssigner, bounds: tuple[float, float]) -> None:
    low, high = bounds
    part = Clip(assigner=assigner, low=low, high=high)
    check_credit(part)
    view = View(mixed())
    inner, got = assigner.credit(view), part.credit(view)
    assert got.scale_BT.dtype == inner.scale_BT.dtype
    assert of_tokens(got.scale_BT, view) == [min(max(value, low), high) for value in of_tokens(inner.scale_BT, view)]
    if inner.shift_BT is None:
        assert got.shift_BT is None
    else:
        assert got.shift_BT is not None and torch.equal(got.shift_BT, inner.shift_BT)


def test_golden() -> None:
    """DelTA's worked example, cut to [0.9, 1.1]."""
    from delta_lightning.testing.worlds import golden

    view = View(golden())
    wanted = [1.066752, 0.9, 1.068494, 0.9, 1.1, 1.1, 1.074668, 0.991378, 0.9]
    assert of_tokens(Clip(low=0.9, high=1.1).credit(view).scale_BT, view) == pytest.approx(wanted, abs=1e-6)


def test_degenerate_batches_are_uniform() -> None:
    for name in ("no advantage", "positive side only", "one token", "all tokens masked", "no rows"):
        world = degenerate()[name]
        assert torch.equal(Clip().credit(View(world)).scale_BT, world.batch.loss_mask_BT.double()), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": -0.1}, "credit.Clip.low"),
        ({"low": math.nan}, "credit.Clip.low"),
        ({"low": math.inf, "high": math.inf}, "credit.Clip.low: wanted finite"),
        ({"low": 1.0, "high": 0.9}, r"credit.Clip.high: wanted at least low \(1.0\), got 0.9"),
        ({"high": math.nan}, "credit.Clip.high"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Clip(**fields)  # type: ignore[arg-type]
