from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import GMPO
from delta_lightning.testing.laws import check_loss
from support import reference_losses
from support.loss_worlds import at_ratios, check_against, values_and_slopes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("clip", "clamp"), [(0.4, 20.0), (0.1, 0.5), (3.0, 1.0)])
def test_equals_the_reference(clip: float, clamp: float, dtype: torch.dtype) -> None:
    part = GMPO(log_clip=clip, log_ratio_clamp=clamp)
    check_against(part, partial(reference_losses.gmpo, clip=clip, clamp=clamp), dtype=dtype)


def test_golden_values() -> None:
    loss_N, slope_N = values_and_slopes(GMPO(), *at_ratios(advantage=1.0))
    assert loss_N.tolist() == pytest.approx([-0.965535] * 5, abs=1e-6)
    assert slope_N.tolist() == pytest.approx([-0.965535] * 4 + [0], abs=1e-6)  # r = 2 is above e^0.4
    loss_N, slope_N = values_and_slopes(GMPO(), *at_ratios(advantage=-1.0))
    assert loss_N.tolist() == pytest.approx([1.085658] * 5, abs=1e-6)
    assert slope_N.tolist() == pytest.approx([0] + [1.085658] * 4, abs=1e-6)  # r = 0.5 is below e^-0.4


def test_only_the_mean_of_credit_has_an_effect() -> None:
    pairs = [values_and_slopes(GMPO(), *at_ratios(advantage=-1.3, credit=c)) for c in ([1.5, 0.5, 1.2, 0.8, 1.0], [1.0] * 5)]
    for got, wanted in zip(*pairs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-14, atol=0)
    assert GMPO().erases_token_credit()


def test_obeys_the_laws_with_a_narrow_clip() -> None:
    check_loss(GMPO(log_clip=0.05))


def test_metrics_count_tokens_at_the_bound() -> None:
    for advantage, upper, lower in ((1.0, [0, 0, 0, 0, 1], [0] * 5), (-1.0, [0] * 5, [1, 0, 0, 0, 0])):
        experience, scores, _ = at_ratios(advantage=advantage)
        values = GMPO().metrics(experience, scores)
        mask_BT = experience.batch.loss_mask_BT
        assert values["clip_upper_share"][mask_BT].tolist() == upper
        assert values["clip_lower_share"][mask_BT].tolist() == lower
        assert math.log(float(values["sequence_ratio"][mask_BT][0])) == pytest.approx(
            -0.035073 if advantage > 0 else 0.082186, abs=1e-6
        )


@pytest.mark.parametrize("fields", [{"log_clip": 0.0}, {"log_ratio_clamp": 0.0}, {"log_clip": float("nan")}])
def test_refuses_fields_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"loss.{next(iter(fields))}"):
        GMPO(**fields)
