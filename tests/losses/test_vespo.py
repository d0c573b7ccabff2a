from __future__ import annotations

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import VESPO
from delta_lightning.testing.laws import check_loss
from support import reference_losses
from support.loss_worlds import at_ratios, check_against, values_and_slopes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1.0, 6.0])
def test_equals_the_reference(size: float, dtype: torch.dtype) -> None:
    check_against(VESPO(), reference_losses.vespo, size=size, dtype=dtype)


def test_obeys_the_laws_with_other_shapes() -> None:
    check_loss(VESPO(shape_positive=0.0, rate_positive=0.5, shape_negative=5.0, rate_negative=4.0))


@pytest.mark.parametrize(("advantage", "peak", "height"), [(1.0, 2 / 3, 1.208125), (-1.0, 3 / 2, 1.241593)])
def test_the_weight_is_one_at_the_old_policy_and_peaks_at_shape_over_rate(advantage: float, peak: float, height: float) -> None:
    for ratios, wanted in (([2.0, 0.5], 1.0), ([2 * peak, 0.5], height), ([0.01, 0.01], 0.0), ([9.0, 9.0], 0.0)):
        experience, scores, leaf = at_ratios(ratios, advantage=advantage)
        weight_N = VESPO().metrics(experience, scores)["sequence_weight"][experience.batch.loss_mask_BT]
        assert weight_N.tolist() == pytest.approx([wanted] * 2, abs=1e-5)
        _, slope_N = values_and_slopes(VESPO(), experience, scores, leaf)
        torch.testing.assert_close(slope_N, -advantage * weight_N)


def test_credit_multiplies_each_token() -> None:
    credit = [1.5, 0.5, 1.2, 0.8, 1.0]
    _, slope_N = values_and_slopes(VESPO(), *at_ratios(advantage=-1.0))
    _, scaled_N = values_and_slopes(VESPO(), *at_ratios(advantage=-1.0, credit=credit))
    torch.testing.assert_close(scaled_N, torch.tensor(credit, dtype=torch.float64) * slope_N)
    assert not VESPO().erases_token_credit()


@pytest.mark.parametrize("fields", [{"shape_positive": -1.0}, {"rate_negative": 0.0}, {"rate_positive": float("nan")}])
def test_refuses_fields_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"loss.{next(iter(fields))}"):
        VESPO(**fields)
