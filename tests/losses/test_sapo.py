from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, strategies

from delta_lightning.errors import ConfigError
from delta_lightning.losses import SAPO
from delta_lightning.testing.laws import check_loss
from support import reference_losses
from support.loss_worlds import at_ratios, check_against, values_and_slopes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("taus", [(1.0, 1.05), (0.5, 3.0)])
def test_equals_the_reference(taus: tuple[float, float], dtype: torch.dtype) -> None:
    positive, negative = taus
    reference = partial(reference_losses.sapo, positive=positive, negative=negative)
    check_against(SAPO(tau_positive=positive, tau_negative=negative), reference, dtype=dtype)


def test_obeys_the_laws_at_other_temperatures() -> None:
    check_loss(SAPO(tau_positive=0.3, tau_negative=4.0))


def test_golden_values() -> None:
    loss_N, slope_N = values_and_slopes(SAPO(), *at_ratios(advantage=1.0))
    assert (-loss_N).tolist() == pytest.approx([1.510163, 1.900083, 2, 2.248706, 2.924234], abs=1e-6)
    assert (-slope_N).tolist() == pytest.approx([0.470007, 0.897754, 1, 1.230670, 1.572895], abs=1e-6)
    _, slope_N = values_and_slopes(SAPO(), *at_ratios(advantage=-1.0))
    assert slope_N.tolist() == pytest.approx([0.46707, 0.897524, 1, 1.228712, 1.53622], abs=1e-6)


@given(log_ratio=strategies.floats(-6, 6), advantage=strategies.floats(-3, 3), tau=strategies.floats(0.1, 10))
def test_gradient_is_the_ratio_times_a_squared_secant(log_ratio: float, advantage: float, tau: float) -> None:
    ratio = math.exp(log_ratio)
    experience, scores, leaf = at_ratios([ratio], advantage=advantage)
    _, slope_N = values_and_slopes(SAPO(tau_positive=tau, tau_negative=tau), experience, scores, leaf)
    a = float(experience.advantages[0])
    half = min(tau * (ratio - 1) / 2, 300.0)
    assert float(slope_N) == pytest.approx(-a * ratio / math.cosh(half) ** 2, rel=1e-9, abs=1e-12)


def test_the_gate_metric_is_the_factor_on_the_gradient() -> None:
    experience, scores, leaf = at_ratios(advantage=-2.0)
    _, slope_N = values_and_slopes(SAPO(), experience, scores, leaf)
    gate_N = SAPO().metrics(experience, scores)["gate"][experience.batch.loss_mask_BT]
    torch.testing.assert_close(gate_N * 2, slope_N)


@given(credit=strategies.floats(0.01, 100))
def test_positive_credit_commutes(credit: float) -> None:
    loss_N, slope_N = values_and_slopes(SAPO(), *at_ratios(advantage=-1.5))
    scaled = values_and_slopes(SAPO(), *at_ratios(advantage=-1.5, credit=[credit] * 5))
    torch.testing.assert_close(scaled[0], credit * loss_N)
    torch.testing.assert_close(scaled[1], credit * slope_N)


@pytest.mark.parametrize("name", ["tau_positive", "tau_negative"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_temperatures_that_are_not_positive(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"loss.{name}"):
        SAPO(**{name: value})


def test_defaults_are_the_published_ones() -> None:
    assert SAPO() == SAPO(tau_positive=1.0, tau_negative=1.05)
    assert not SAPO().erases_token_credit() and not SAPO().single_signed()
