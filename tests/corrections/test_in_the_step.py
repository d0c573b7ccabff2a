"""A correction inside a whole rollout step: what it drops is gone from credit, totals and loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

from delta_lightning.corrections import CombinedCorrection, NoCorrection, StatisticRejection, TruncatedImportance
from delta_lightning.interfaces import RolloutCorrection
from delta_lightning.trainer.step import Parts
from support.models import tiny_model
from support.steps import StepSetup, gradients, make_buffer

# The scripted sampler says -1 nats of every token, a random model of 64 tokens about -log 64: k1 is near 3.2.
HALF = CombinedCorrection(
    rejection=StatisticRejection(estimator="k1", over="token", high=3.16), importance=TruncatedImportance(cap=0.044)
)


@dataclass
class Corrected(StepSetup):
    correction: RolloutCorrection = field(default_factory=NoCorrection)

    def parts(self) -> Parts:
        return replace(super().parts(), correction=self.correction)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_dropped_tokens_leave_credit_totals_and_old_logprobs() -> None:
    model = tiny_model(dtype=torch.float64)
    whole, half = (make_buffer(model, Corrected(correction=part)) for part in (NoCorrection(), HALF))
    before_BT, mask_BT = whole.experience.batch.loss_mask_BT, half.experience.batch.loss_mask_BT
    d_BT = whole.experience.old_logprobs_BT - whole.experience.batch.behaviour_logprobs_BT
    assert torch.equal(mask_BT, before_BT & (-d_BT <= 3.16))
    kept = int(mask_BT.sum())
    assert 0 < kept < int(before_BT.sum())
    experience = half.experience
    assert sum(totals.tokens for totals in half.totals) == kept
    # DelTA's coefficients have mean 1 over what is left: it saw the mask of the correction.
    assert experience.credit.scale_BT.sum().item() == pytest.approx(kept, rel=1e-9)
    for value_BT in (experience.credit.scale_BT, experience.correction_BT, experience.old_logprobs_BT):
        assert not bool(value_BT[~mask_BT].any())
    wanted_N = d_BT[mask_BT].exp().clamp(max=0.044)
    torch.testing.assert_close(experience.correction_BT[mask_BT].double(), wanted_N, rtol=1e-6, atol=0)
    assert 0 < int((wanted_N < 0.044).sum()) < kept


def test_a_constant_weight_scales_the_gradient_and_rejecting_everything_gives_none() -> None:
    model = tiny_model(dtype=torch.float64)
    results = []
    for part in (NoCorrection(), TruncatedImportance(cap=1e-6), StatisticRejection(high=0.0)):
        setup = Corrected(correction=part)
        results.append(gradients(model, make_buffer(model, setup), setup)[0])
    plain, scaled, none = results
    for update in range(2):
        for name, gradient in plain[update].items():
            # The model's norms compute in float32 whatever its dtype.
            assert (scaled[update][name] - 1e-6 * gradient).abs().max() <= 1e-6 * 1e-5 * gradient.abs().max()
            assert not bool(none[update][name].any())
