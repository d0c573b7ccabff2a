from __future__ import annotations

import pytest
import torch

from delta_lightning.losses import Reinforce
from delta_lightning.testing.laws import check_loss
from support import reference_losses
from support.loss_worlds import RATIOS, at_ratios, check_against


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_reference(dtype: torch.dtype) -> None:
    check_against(Reinforce(), reference_losses.reinforce, dtype=dtype)


def test_obeys_the_laws() -> None:
    check_loss(Reinforce())


def test_has_no_ratio_in_its_gradient() -> None:
    experience, scores, leaf = at_ratios(advantage=2.0, credit=[1, 2, 0.5, 1, 1])
    (slope_BT,) = torch.autograd.grad(Reinforce().per_token(experience, scores, None).sum(), leaf)
    assert slope_BT[experience.batch.loss_mask_BT].tolist() == [-2, -4, -1, -2, -2]


def test_reports_how_far_the_policy_went() -> None:
    experience, scores, _ = at_ratios(advantage=1.0)
    values = Reinforce().metrics(experience, scores)
    mask_BT = experience.batch.loss_mask_BT
    assert values["ratio"][mask_BT].tolist() == pytest.approx(RATIOS)
    # k3 of KL(old, new) on tokens of old: r - 1 - log r
    assert values["kl_nats"][mask_BT].tolist() == pytest.approx([0.193147, 0.005361, 0, 0.026856, 0.306853], abs=1e-6)


def test_keeps_token_credit() -> None:
    assert not Reinforce().erases_token_credit() and not Reinforce().single_signed() and Reinforce().needs() == frozenset()
