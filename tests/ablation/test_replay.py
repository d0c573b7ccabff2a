"""Coefficients of several assigners on one scored batch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from delta_lightning.ablation.replay import replay
from delta_lightning.credit import Delta, Uniform
from delta_lightning.errors import RunError
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit
from support.ablation import Nudged, scored_batch
from support.models import tiny_model
from support.steps import StepSetup, by_sequence, make_buffer


@dataclass(frozen=True, kw_only=True)
class Broken(CreditAssigner):
    def credit(self, view: StepView) -> Credit:
        return Credit(scale_BT=view.batch.loss_mask_BT.float() / 0)


def test_coefficients_are_those_of_training() -> None:
    model, setup = tiny_model(), StepSetup(micro=3)
    scored, _ = scored_batch(model, setup)
    heard: list[str] = []
    replayed, experiences = replay(scored, {"u": Uniform(), "d": Delta()}, heard.append)
    assert heard == ["u", "d"] and list(experiences) == ["u", "d"]
    assert set(replayed.coefficients["u"].tolist()) == {1.0} and not replayed.shifts
    trained = by_sequence(make_buffer(model, setup))
    want = [value for sequence in sorted(trained) for value in trained[sequence]]
    assert replayed.coefficients["d"].tolist() == want
    assert replayed.sequence_N.tolist() == sorted(replayed.sequence_N.tolist())


def test_tokens_and_advantages_stand_beside_their_coefficients() -> None:
    scored, _ = scored_batch(tiny_model(), StepSetup())
    replayed, _ = replay(scored, {"u": Uniform()})
    batch = scored.view.batch
    for row, sequence in enumerate(batch.sequence_ids_B.tolist()):
        here = replayed.sequence_N == sequence
        mask = batch.loss_mask_BT[row]
        assert torch.equal(replayed.token_N[here], batch.token_ids_BT[row][mask])
        assert torch.equal(replayed.logprob_N[here], scored.old_logprobs_BT[row][mask].double())
        assert set(replayed.advantage_N[here].tolist()) == {float(scored.view.advantages[row])}
    sides = [replayed.side(name) for name in ("positive", "negative", "zero")]
    assert all(bool(side.any()) for side in sides) and bool((sum(side.int() for side in sides) == 1).all())
    assert torch.equal(replayed.side("signal"), ~replayed.side("zero")) and bool(replayed.side("all").all())


def test_an_additive_coefficient_is_the_token_advantage_over_the_advantage() -> None:
    scored, _ = scored_batch(tiny_model(), StepSetup())
    replayed, experiences = replay(scored, {"n": Nudged()})
    a_N, token_BT = replayed.advantage_N, experiences["n"].token_advantages_BT
    token_N = scored.view.gather(token_BT[scored.view.batch.loss_mask_BT]).double()
    signal = replayed.side("signal")
    torch.testing.assert_close(replayed.coefficients["n"][signal] * a_N[signal], token_N[signal], atol=1e-6, rtol=1e-6)
    assert set(replayed.coefficients["n"][~signal].tolist()) == {1.0}
    torch.testing.assert_close(replayed.shifts["n"][~signal], token_N[~signal], atol=1e-6, rtol=1e-6)


def test_infinite_coefficients_stop_it() -> None:
    scored, _ = scored_batch(tiny_model(), StepSetup())
    with pytest.raises(RunError, match=r"bad gave \d+ coefficients that are not finite"):
        replay(scored, {"bad": Broken()})
