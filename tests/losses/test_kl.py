from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.functional.divergences import Estimator
from delta_lightning.losses import KL
from delta_lightning.testing.laws import at_log_ratio, check_penalty, drift
from delta_lightning.testing.worlds import mixed
from delta_lightning.types import Need, with_mask
from support import reference_weightings as reference

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_laws_of_every_estimator(estimator: Estimator) -> None:
    check_penalty(KL(estimator=estimator))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_equals_the_reference_token_by_token(estimator: Estimator, dtype: torch.dtype, tolerance: float) -> None:
    world = mixed(dtype)
    experience, scores, _ = at_log_ratio(world, 0.3 * drift(world))
    value_BT = KL(estimator=estimator, coefficient=0.5).per_token(experience, scores).detach()
    assert value_BT.dtype == dtype
    for row, t in world.batch.loss_mask_BT.nonzero().tolist():
        wanted = 0.5 * reference.kl(
            estimator,
            float(scores.logprobs_BT.detach()[row, t]),
            float(world.reference_logprobs_BT[row, t]),
            float(world.logprobs_BT[row, t]),
        )
        assert float(value_BT[row, t]) == pytest.approx(wanted, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("log_ratio", [50.0, -50.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_extreme_log_ratios_are_finite(estimator: Estimator, log_ratio: float, dtype: torch.dtype) -> None:
    world = mixed(dtype)
    experience, scores, leaf = at_log_ratio(world, log_ratio)
    value = KL(estimator=estimator).per_token(experience, scores)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert bool(torch.isfinite(value).all()) and bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_zero_at_the_reference(estimator: Estimator) -> None:
    world = mixed()
    same = replace(world, reference_logprobs_BT=world.logprobs_BT)
    assert not bool(KL(estimator=estimator).per_token(same.experience(), same.scores(slice(0, 12))).any())


def test_a_mask_that_shrank_leaves_nothing_behind() -> None:
    """Reference and old log-probabilities of dropped tokens are still there, the scores are 0."""
    world = mixed()
    experience = world.experience()
    mask_BT = experience.batch.loss_mask_BT.clone()
    mask_BT[:, 2] = False
    shrunk = replace(experience, batch=with_mask(experience.batch, mask_BT))
    scores = world.scores(slice(0, 12))
    scores = replace(scores, logprobs_BT=scores.logprobs_BT * mask_BT)
    value_BT = KL().per_token(shrunk, scores)
    assert not bool(value_BT[~mask_BT].any())
    assert torch.equal(value_BT[mask_BT], KL().per_token(experience, world.scores(slice(0, 12)))[mask_BT])


def test_credit_does_not_change_it() -> None:
    world = mixed()
    experience, scores, _ = at_log_ratio(world, drift(world))
    credited = world.experience(3.0 * world.batch.loss_mask_BT)
    assert torch.equal(KL().per_token(credited, scores), KL().per_token(experience, scores))


def test_says_what_is_missing() -> None:
    world = mixed()
    experience = replace(world.experience(), reference_logprobs_BT=None)
    with pytest.raises(ValueError, match="no log-probabilities of a reference policy"):
        KL().per_token(experience, world.scores(slice(0, 12)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"estimator": "k4"}, "penalty.estimator: wanted one of k1, k2, k3, unbiased"),
        ({"coefficient": -0.1}, "penalty.coefficient"),
        ({"coefficient": float("inf")}, "penalty.coefficient"),
        ({"log_ratio_clamp": 0.0}, "penalty.log_ratio_clamp"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KL(**fields)  # type: ignore[arg-type]


def test_defaults_are_those_of_grpo() -> None:
    assert (KL().estimator, KL().coefficient) == ("k3", 0.04)
    assert KL().needs() == {Need.REFERENCE}
