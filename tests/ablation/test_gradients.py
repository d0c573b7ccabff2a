"""Inner products of gradients against whole gradients, taken one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from delta_lightning.ablation.gradients import gradient_products
from delta_lightning.ablation.replay import replay
from delta_lightning.credit import Delta, Uniform
from delta_lightning.errors import RunError
from delta_lightning.functional.agreement import cosines
from delta_lightning.interfaces import TokenWeighting
from delta_lightning.trainer.step import Parts
from delta_lightning.types import Experience, Need, Statistics, TokenScores
from support.ablation import Nudged, scored_batch
from support.models import tiny_model
from support.steps import StepSetup, gradients, make_buffer

F64 = torch.float64
ASSIGNERS = {"u": Uniform(), "d": Delta(), "n": Nudged(), "again": Uniform()}


def products(setup: StepSetup, *, budget: float = 1e9, parts: Parts | None = None, model: object = None) -> torch.Tensor:
    model = model or tiny_model(dtype=F64)
    scored, micro = scored_batch(model, setup)
    _, experiences = replay(scored, ASSIGNERS)
    return gradient_products(experiences, scored.view, micro, parts or setup.parts(), setup.scorer(model), budget_bytes=budget)


def test_products_of_whole_gradients() -> None:
    setup, model = StepSetup(updates=1, micro=3), tiny_model(dtype=F64)
    vectors = []
    for assigner in ASSIGNERS.values():
        own = replace(setup, credit=assigner)
        [one], _ = gradients(model, make_buffer(model, own), own)
        vectors.append(torch.cat([one[name].flatten() for name, _ in model.named_parameters()]))
    want = torch.stack(vectors) @ torch.stack(vectors).T
    assert float(want.abs().min()) > 0
    got = products(setup)
    assert float((got - want).abs().max() / want.abs().max()) < 1e-10
    angles = cosines(got)
    assert angles[0][3] == pytest.approx(1.0, abs=1e-12) and 0 < angles[0][1] < 1 - 1e-6


def test_neither_blocks_nor_micro_batches_matter() -> None:
    want = products(StepSetup())
    for setup, budget in ((StepSetup(), 0.0), (StepSetup(), 60_000.0), (StepSetup(micro=1), 1e9), (StepSetup(micro=20), 1e9)):
        got = products(setup, budget=budget)
        assert float((got - want).abs().max() / want.abs().max()) < 1e-10


def test_no_gradient_is_left_in_the_model() -> None:
    model = tiny_model()
    products(StepSetup(), model=model)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_gradient_that_is_not_finite_is_no_cosine() -> None:
    model, setup = tiny_model(dtype=F64), StepSetup()
    scored, micro = scored_batch(model, setup)
    _, experiences = replay(scored, ASSIGNERS)
    huge = torch.full_like(experiences["d"].correction_BT, 1e300, dtype=F64)
    experiences["d"] = replace(experiences["d"], correction_BT=huge * experiences["d"].batch.loss_mask_BT)
    with pytest.raises(RunError, match="the policy gradient under d is not finite"):
        gradient_products(experiences, scored.view, micro, setup.parts(), setup.scorer(model), budget_bytes=1e9)


@dataclass(frozen=True, kw_only=True)
class Halved(TokenWeighting):
    """Keeps tokens whose token advantage is positive: a mask that differs between assigners."""

    def needs(self) -> frozenset[Need]:
        return frozenset({Need.MINI_BATCH})

    def statistics(self, experience: Experience, view: object) -> Statistics:
        return Statistics(keep_BT=experience.token_advantages_BT > 0)

    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> torch.Tensor:
        assert statistics is not None
        return torch.ones_like(scores.logprobs_BT, requires_grad=False)


def test_statistics_may_shrink_each_mask_by_itself() -> None:
    setup, model = StepSetup(), tiny_model(dtype=F64)
    parts = replace(setup.parts(), weighting=Halved())
    got = products(setup, parts=parts)
    assert got[0, 0] == pytest.approx(float(got[0, 3]), rel=1e-12)
    scored, _ = scored_batch(model, setup)
    _, experiences = replay(scored, ASSIGNERS)
    for place, label in ((0, "u"), (2, "n")):
        experience = experiences[label]
        keep_BT = experience.batch.loss_mask_BT & (experience.token_advantages_BT > 0)
        scores = setup.scorer(model).score(experience.batch, frozenset())
        loss = -((experience.token_advantages_BT.double() * scores.logprobs_BT)[keep_BT]).sum() / keep_BT.sum()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        assert float(sum(g.square().sum() for g in grads)) == pytest.approx(float(got[place, place]), rel=1e-9), label
