from __future__ import annotations

from functools import partial

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import GSPO, GSPOToken, SequenceMean
from delta_lightning.testing.laws import at_log_ratio, check_loss
from delta_lightning.testing.worlds import mixed, totals_of
from support import reference_losses
from support.loss_worlds import at_ratios, check_against, values_and_slopes

WIDE = {"clip_low": 0.2, "clip_high": 0.3}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("low", "high"), [(3e-4, 4e-4), (0.2, 0.3)])
def test_equals_the_reference(low: float, high: float, dtype: torch.dtype) -> None:
    check_against(GSPO(clip_low=low, clip_high=high), partial(reference_losses.gspo, low=low, high=high), dtype=dtype)


def test_equals_the_reference_beyond_the_clamp() -> None:
    part = GSPO(clip_low=1.0, clip_high=1e6, log_ratio_clamp=0.5)
    check_against(part, partial(reference_losses.gspo, low=1.0, high=1e6, clamp=0.5))


def test_obeys_the_laws_with_wide_bounds() -> None:
    check_loss(GSPO(**WIDE))


def test_golden_ratio() -> None:
    experience, scores, _ = at_ratios(advantage=1.0)
    values = GSPO().metrics(experience, scores)
    mask_BT = experience.batch.loss_mask_BT
    assert values["sequence_ratio"][mask_BT].tolist() == pytest.approx([1.023836] * 5, abs=1e-6)
    assert values["clip_upper_share"][mask_BT].tolist() == [1] * 5
    assert not bool(values["clip_lower_share"].any())
    loss_N, slope_N = values_and_slopes(GSPO(**WIDE), *at_ratios(advantage=-1.0))
    assert loss_N.tolist() == pytest.approx([1.023836] * 5, abs=1e-6)
    assert slope_N.tolist() == pytest.approx([1.023836] * 5, abs=1e-6)


def test_only_the_mean_of_credit_has_an_effect() -> None:
    uneven, even = [1.5, 0.5, 1.2, 0.8, 1.0], [1.0] * 5
    pairs = [values_and_slopes(GSPO(**WIDE), *at_ratios(advantage=-1.3, credit=credit)) for credit in (uneven, even)]
    for got, wanted in zip(*pairs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-14, atol=0)
    kept = [values_and_slopes(GSPOToken(**WIDE), *at_ratios(advantage=-1.3, credit=credit)) for credit in (uneven, even)]
    assert float((kept[0][1] - kept[1][1]).abs().max()) > 0.1
    assert GSPO().erases_token_credit() and not GSPO().single_signed()


def test_under_the_sequence_mean_it_is_the_mean_of_sequence_losses() -> None:
    world = mixed()
    mask_BT = world.batch.loss_mask_BT
    experience, scores, _ = at_log_ratio(world, 0.1)
    loss = (GSPO(**WIDE).per_token(experience, scores, None) * SequenceMean().weights(experience, totals_of(world))).sum()
    s = torch.tensor(0.1).double().exp()
    rows = [a for a, row in zip(world.advantages.tolist(), mask_BT.any(1).tolist(), strict=True) if row]
    assert float(loss.detach()) == pytest.approx(-float(s) * sum(rows) / len(rows), abs=1e-7)


@pytest.mark.parametrize(
    "fields",
    [{"clip_low": -0.1}, {"clip_low": 1.1}, {"clip_high": -1.0}, {"log_ratio_clamp": 0.0}, {"clip_high": float("nan")}],
)
def test_refuses_fields_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"loss.{next(iter(fields))}"):
        GSPO(**fields)


def test_defaults_are_the_published_ones() -> None:
    assert GSPO() == GSPO(clip_low=3e-4, clip_high=4e-4, log_ratio_clamp=10.0)
