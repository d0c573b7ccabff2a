from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings, strategies

from delta_lightning.errors import ConfigError
from delta_lightning.losses import GSPO, GSPOToken
from delta_lightning.testing.laws import check_loss
from support import reference_losses
from support.loss_worlds import at_ratios, check_against, values_and_slopes

WIDE = {"clip_low": 0.2, "clip_high": 0.3}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("low", "high"), [(3e-4, 4e-4), (0.2, 0.3)])
def test_equals_the_reference(low: float, high: float, dtype: torch.dtype) -> None:
    check_against(
        GSPOToken(clip_low=low, clip_high=high), partial(reference_losses.gspo_token, low=low, high=high), dtype=dtype
    )


def test_equals_the_reference_beyond_the_clamp() -> None:
    part = GSPOToken(clip_low=1.0, clip_high=1e6, log_ratio_clamp=0.5)
    check_against(part, partial(reference_losses.gspo_token, low=1.0, high=1e6, clamp=0.5))


def test_obeys_the_laws_with_wide_bounds() -> None:
    check_loss(GSPOToken(**WIDE))


@settings(max_examples=30)
@given(
    ratios=strategies.lists(strategies.floats(0.05, 20), min_size=1, max_size=6),
    advantage=strategies.floats(-3, 3),
    low=strategies.floats(0, 1),
    high=strategies.floats(0, 2),
)
def test_is_gspo_where_the_advantage_is_constant(ratios: list[float], advantage: float, low: float, high: float) -> None:
    world = at_ratios(ratios, advantage=advantage)
    token = values_and_slopes(GSPOToken(clip_low=low, clip_high=high), *world)
    sequence = values_and_slopes(GSPO(clip_low=low, clip_high=high), *world)
    for got, wanted in zip(token, sequence, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_credit_multiplies_each_token() -> None:
    credit = [1.5, 0.5, 1.2, 0.8, 1.0]
    loss_N, slope_N = values_and_slopes(GSPOToken(**WIDE), *at_ratios(advantage=-1.0))
    scaled = values_and_slopes(GSPOToken(**WIDE), *at_ratios(advantage=-1.0, credit=credit))
    torch.testing.assert_close(scaled[0], torch.tensor(credit, dtype=torch.float64) * loss_N)
    torch.testing.assert_close(scaled[1], torch.tensor(credit, dtype=torch.float64) * slope_N)
    assert not GSPOToken().erases_token_credit() and GSPOToken().single_signed()


def test_metrics_go_by_the_sequence() -> None:
    experience, scores, _ = at_ratios(advantage=1.0)
    values = GSPOToken().metrics(experience, scores)
    mask_BT = experience.batch.loss_mask_BT
    assert values["clip_upper_share"][mask_BT].tolist() == [1] * 5
    assert values["sequence_ratio"][mask_BT].tolist() == pytest.approx([1.023836] * 5, abs=1e-6)
    assert values["ratio"][mask_BT].tolist() == pytest.approx([0.5, 0.9, 1, 1.25, 2])


@pytest.mark.parametrize("fields", [{"clip_low": -0.1}, {"clip_high": -1.0}, {"log_ratio_clamp": 0.0}])
def test_refuses_fields_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"loss.{next(iter(fields))}"):
        GSPOToken(**fields)
