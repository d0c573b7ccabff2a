from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from delta_lightning.credit import Delta, Uniform
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.losses import ClippedSurrogate, TokenMean
from delta_lightning.testing.laws import at_log_ratio, drift
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import golden, mixed, totals_of
from support import reference

RATIOS = [1.5, 0.5, 1, 1.3, 1, 0.6, 1.2, 12, 2]
GOLDEN = [-1.365443, -0.444972, -1.068494, -0.569565, -0.557960, 1.366925, 1.934402, 14.870675, 0]


@pytest.mark.parametrize(("credit", "wanted"), [(Delta(), 1.573952), (Uniform(), 1.564444)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-6)])
def test_golden_loss(credit: CreditAssigner, wanted: float, dtype: torch.dtype, tolerance: float) -> None:
    world = golden(dtype)
    mask_BT = world.batch.loss_mask_BT
    experience = world.experience(credit.credit(View(world)).scale_BT)
    log_ratio_BT = torch.zeros_like(world.logprobs_BT)
    log_ratio_BT[mask_BT] = torch.tensor(RATIOS, dtype=dtype).log()
    scores = replace(world.scores(slice(0, 4)), logprobs_BT=world.logprobs_BT + log_ratio_BT)
    loss_BT = ClippedSurrogate().per_token(experience, scores, None)
    if isinstance(credit, Delta):
        torch.testing.assert_close(loss_BT[mask_BT].double(), torch.tensor(GOLDEN).double(), rtol=1e-6, atol=1e-6)
    mean = (loss_BT * TokenMean().weights(experience, totals_of(world))).sum()
    assert mean.dtype == dtype
    assert mean.item() == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("part", [ClippedSurrogate(), ClippedSurrogate(clip_low=0.1, clip_high=0.5, dual_clip=None)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_reference_token_by_token(part: ClippedSurrogate, dtype: torch.dtype, tolerance: float) -> None:
    world = mixed(dtype)
    _, scores, _ = at_log_ratio(world, drift(world))
    experience = world.experience(Delta().credit(View(world)).scale_BT)
    loss_BT = part.per_token(experience, scores, None).detach()
    for row, t in world.batch.loss_mask_BT.nonzero().tolist():
        log_ratio = float(scores.logprobs_BT.detach()[row, t] - experience.old_logprobs_BT[row, t])
        advantage = float(experience.credit.scale_BT[row, t]) * float(world.advantages[row])
        wanted = reference.surrogate(
            log_ratio, advantage, clip_low=part.clip_low, clip_high=part.clip_high, dual=part.dual_clip
        )
        assert float(loss_BT[row, t]) == pytest.approx(wanted, rel=tolerance, abs=tolerance)


def test_metrics_count_where_the_gradient_stops() -> None:
    world = golden()
    mask_BT = world.batch.loss_mask_BT
    log_ratio_BT = torch.zeros_like(world.logprobs_BT)
    log_ratio_BT[mask_BT] = torch.tensor(RATIOS).double().log()
    scores = replace(world.scores(slice(0, 4)), logprobs_BT=world.logprobs_BT + log_ratio_BT)
    values = ClippedSurrogate().metrics(world.experience(), scores)
    got = {name: value[mask_BT].tolist() for name, value in values.items()}
    assert got["clip_upper_share"] == [1, 0, 0, 1, 0, 0, 0, 0, 0]
    assert got["clip_lower_share"] == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert got["clip_dual_share"] == [0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert got["ratio"] == pytest.approx(RATIOS)
    assert got["kl_nats"][0] == pytest.approx(0.5 - 0.405465, abs=1e-6)
    without = ClippedSurrogate(dual_clip=None).metrics(world.experience(), scores)
    assert not bool(without["clip_dual_share"].any())


def test_metrics_at_the_old_policy() -> None:
    world = mixed(torch.float32)
    values = ClippedSurrogate().metrics(world.experience(), world.scores(slice(0, 12)))
    assert torch.equal(values["ratio"], world.batch.loss_mask_BT.float())
    assert not any(bool(value.any()) for name, value in values.items() if name != "ratio")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"clip_low": -0.1}, "loss.clip_low"),
        ({"clip_low": 1.1}, "loss.clip_low"),
        ({"clip_high": -0.1}, "loss.clip_high"),
        ({"dual_clip": 1.0}, "loss.dual_clip"),
        ({"log_ratio_clamp": 0.0}, "loss.log_ratio_clamp"),
        ({"clip_high": float("nan")}, "loss.clip_high"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClippedSurrogate(**fields)


def test_defaults_are_the_published_method() -> None:
    assert ClippedSurrogate() == ClippedSurrogate(clip_low=0.2, clip_high=0.28, dual_clip=10.0, log_ratio_clamp=20.0)
    assert ClippedSurrogate().needs() == frozenset()
    assert not ClippedSurrogate().erases_token_credit()
