"""The parts of the published method together: their gradient is the closed form and does not depend on the cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delta_lightning.credit import Delta, Uniform
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.laws import CUTS, TOLERANCE
from support import reference
from support.policy import ToyPolicy, rollouts, step

GRADIENT = {torch.float64: 1e-10, torch.float32: 1e-5}


def near_gradient(got: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    error = float((got.double() - wanted.double()).abs().max() / wanted.abs().max())
    assert error <= GRADIENT[dtype], error


@pytest.mark.parametrize("credit", [Delta(), Uniform()])
def test_first_gradient_is_the_closed_form(credit: CreditAssigner) -> None:
    """-1/N sum_t lambda_t A_t grad log p_t, each grad log p_t written out for the toy policy."""
    policy = ToyPolicy.random(torch.float64)
    world = rollouts(torch.float64, policy)
    batch = world.batch
    advantages = reference.group_advantages(batch.rewards_B.double().numpy(), batch.group_ids_B.numpy(), batch.valid_B.numpy())
    tokens = batch.loss_mask_BT.nonzero().tolist()
    if isinstance(credit, Delta):
        proxies = [((1 - world.logprobs_BT[row, t].exp()) * world.hidden_BTD[row, t]).numpy() for row, t in tokens]
        coefficients = reference.delta(proxies, [advantages[row] for row, _ in tokens]).tolist()
    else:
        coefficients = [1.0] * len(tokens)
    embedding_grad, head_grad = torch.zeros_like(policy.embedding), torch.zeros_like(policy.head)
    head = policy.head.detach()
    for (row, t), coefficient in zip(tokens, coefficients, strict=True):
        hidden, token, before = world.hidden_BTD[row, t], int(batch.token_ids_BT[row, t]), int(batch.token_ids_BT[row, t - 1])
        error = -torch.softmax(head @ hidden, dim=0)
        error[token] += 1
        factor = -coefficient * float(advantages[row]) / len(tokens)
        head_grad += factor * error[:, None] * hidden
        embedding_grad[before] += factor * (head.T @ error) * (1 - hidden.square())
    got = step(torch.float64, credit=credit)["gradients"]
    # Advantages are stored in float32, so the closed form from float64 ones agrees to that.
    near_gradient(got, torch.cat([embedding_grad.flatten(), head_grad.flatten()]).detach(), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("pad", [0, 5])
def test_independent_of_micro_batches_and_padding(dtype: torch.dtype, cuts: list[slice], pad: int) -> None:
    wanted, got = step(dtype, credit=Delta()), step(dtype, credit=Delta(), cuts=cuts, pad=pad)
    near_gradient(got["gradients"], wanted["gradients"], dtype)
    length = wanted["coefficients"].shape[1]
    torch.testing.assert_close(got["coefficients"][:, :length], wanted["coefficients"], rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(got["loss"], wanted["loss"], rtol=0, atol=TOLERANCE[dtype])


def test_equal_bounds_train_exactly_as_uniform() -> None:
    wanted, got = step(torch.float32, credit=Uniform()), step(torch.float32, credit=Delta(low=0.9, high=0.9))
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert not torch.equal(step(torch.float32, credit=Delta())["gradients"], wanted["gradients"])
