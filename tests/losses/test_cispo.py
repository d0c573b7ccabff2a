from __future__ import annotations

from functools import partial

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import CISPO, Reinforce
from delta_lightning.testing.laws import check_loss
from support import reference_losses
from support.loss_worlds import at_ratios, check_against, values_and_slopes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("cap", "floor"), [(5.0, 0.0), (1.2, 0.0), (1.2, 0.8)])
def test_equals_the_reference(cap: float, floor: float, dtype: torch.dtype) -> None:
    check_against(CISPO(ratio_cap=cap, ratio_floor=floor), partial(reference_losses.cispo, cap=cap, floor=floor), dtype=dtype)


def test_obeys_the_laws_with_both_bounds() -> None:
    check_loss(CISPO(ratio_cap=1.2, ratio_floor=0.8))


def test_golden_weights() -> None:
    """A cap of 1.2 is what others write as epsilon_high = 0.2."""
    for advantage in (1.0, -1.0):
        _, slope_N = values_and_slopes(CISPO(ratio_cap=1.2), *at_ratios(advantage=advantage))
        assert (-advantage * slope_N).tolist() == pytest.approx([0.5, 0.9, 1, 1.2, 1.2])


def test_cap_and_floor_of_one_is_reinforce() -> None:
    world = at_ratios(advantage=-0.7, credit=[1, 2, 3, 4, 5])
    for got, wanted in zip(
        values_and_slopes(CISPO(ratio_cap=1.0, ratio_floor=1.0), *world), values_and_slopes(Reinforce(), *world), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_metrics_count_bounded_weights() -> None:
    experience, scores, _ = at_ratios(advantage=-1.0)
    values = CISPO(ratio_cap=1.2, ratio_floor=0.6).metrics(experience, scores)
    mask_BT = experience.batch.loss_mask_BT
    assert values["clip_upper_share"][mask_BT].tolist() == [0, 0, 0, 1, 1]
    assert values["clip_lower_share"][mask_BT].tolist() == [1, 0, 0, 0, 0]
    assert not bool(values["clip_lower_share"][~mask_BT].any()), "a ratio of 0 outside the mask is below every floor"


@pytest.mark.parametrize(
    "fields", [{"ratio_cap": 0.2}, {"ratio_floor": -0.1}, {"ratio_floor": 1.1}, {"ratio_cap": float("nan")}]
)
def test_refuses_fields_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"loss.{next(iter(fields))}"):
        CISPO(**fields)


def test_a_relative_cap_is_caught() -> None:
    with pytest.raises(ConfigError, match=r"write 1\.2"):
        CISPO(ratio_cap=0.2)
