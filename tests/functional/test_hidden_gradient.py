from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delta_lightning.functional.hidden_gradient import hidden_gradient, smallest_ids_of_top_k, top_k_hidden_gradient

N, V, D = 9, 7, 4


def world() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator, dtype=torch.float64)
    return hidden, torch.randint(V, (N,), generator=generator), torch.randn(V, D, generator=generator, dtype=torch.float64)


def test_is_the_gradient_of_the_log_probability() -> None:
    hidden, targets, weight = world()
    hidden.requires_grad_()
    logits = hidden @ weight.T
    torch.log_softmax(logits, 1).gather(1, targets[:, None]).sum().backward()
    torch.testing.assert_close(hidden_gradient(logits.detach(), targets, weight), hidden.grad, rtol=0, atol=1e-12)


def test_certain_tokens_do_not_cancel() -> None:
    """p = 1 - 1e-15: the gradient is exp(-34.5) (W_y - W_j), to full precision."""
    weight = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    logits = torch.tensor([[34.5, 0.0]], dtype=torch.float64)
    wanted, targets = torch.exp(torch.tensor(-34.5).double()) * (weight[0] - weight[1]), torch.tensor([0])
    for got in (hidden_gradient(logits, targets, weight), top_k_hidden_gradient(logits, targets, weight, 2)):
        torch.testing.assert_close(got[0], wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("k", [V, V + 5])
def test_top_k_of_all_is_the_gradient(k: int) -> None:
    hidden, targets, weight = world()
    logits = hidden @ weight.T
    got, wanted = top_k_hidden_gradient(logits, targets, weight, k), hidden_gradient(logits, targets, weight)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_top_1() -> None:
    """W_y - W of the likeliest; 0 where y is the likeliest."""
    hidden, targets, weight = world()
    logits = hidden @ weight.T
    wanted = weight[targets] - weight[logits.argmax(1)]
    torch.testing.assert_close(top_k_hidden_gradient(logits, targets, weight, 1), wanted, rtol=0, atol=1e-12)


def test_ties_go_to_smaller_ids() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 1.0, 2.0, 2.0]])
    assert smallest_ids_of_top_k(logits, 2).tolist() == [[0, 1], [0, 1], [0, 2]]
    assert smallest_ids_of_top_k(logits, 9).tolist() == [[0, 1, 2, 3]] * 3


def test_no_tokens() -> None:
    _, _, weight = world()
    nothing = torch.zeros(0, V, dtype=torch.float64), torch.zeros(0, dtype=torch.int64), weight
    assert hidden_gradient(*nothing).shape == (0, D)
    assert top_k_hidden_gradient(*nothing, 3).shape == (0, D)


def test_head_in_bfloat16() -> None:
    hidden, targets, weight = world()
    got = top_k_hidden_gradient((hidden @ weight.T).float(), targets, weight.bfloat16(), 3)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), top_k_hidden_gradient(hidden @ weight.T, targets, weight, 3), rtol=0.02, atol=0.02)
