"""The chunked head against a NumPy reference, and its gradients against autograd through full logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from delta_lightning.functional.logprobs import chunk_tokens, chunked_head, predicting_states, scatter_tokens


def inputs(n: int = 7, d: int = 5, v: int = 11) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, d, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(v, d, generator=g, dtype=torch.float64, requires_grad=True)
    return hidden, weight, torch.randint(0, v, (n,), generator=g)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_equal_numpy(chunk: int, temperature: float) -> None:
    hidden, weight, targets = inputs()
    out = chunked_head(hidden, weight, targets, temperature=temperature, chunk=chunk, with_entropy=True)
    z = hidden.detach().numpy() @ weight.detach().numpy().T / temperature
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(out.logprobs_N.detach(), np.log(p[np.arange(7), targets]), atol=1e-12)
    np.testing.assert_allclose(out.entropies_N.detach(), -(p * np.log(p)).sum(1), atol=1e-12)
    np.testing.assert_allclose(out.sum_p_squared_N, (p**2).sum(1), atol=1e-12)


@pytest.mark.parametrize("chunk", [2, 7])
def test_gradients_equal_autograd_through_full_logits(chunk: int) -> None:
    hidden, weight, targets = inputs()
    a, b = torch.linspace(-1, 2, 7, dtype=torch.float64), torch.linspace(1, -1, 7, dtype=torch.float64)
    out = chunked_head(hidden, weight, targets, temperature=0.7, chunk=chunk, with_entropy=True)
    (a * out.logprobs_N + b * out.entropies_N).sum().backward()
    got = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    log_p = torch.log_softmax(hidden @ weight.T / 0.7, -1)
    entropies = -(log_p.exp() * log_p).sum(-1)
    (a * log_p.gather(1, targets[:, None])[:, 0] + b * entropies).sum().backward()
    torch.testing.assert_close(got[0], hidden.grad, atol=1e-12, rtol=0)
    torch.testing.assert_close(got[1], weight.grad, atol=1e-12, rtol=0)


def test_no_token_gives_zero_gradients_not_none() -> None:
    hidden, weight, targets = inputs(n=3)
    out = chunked_head(hidden[:0], weight, targets[:0])
    out.logprobs_N.sum().backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_states_are_those_before_the_tokens() -> None:
    hidden_BTD = torch.arange(8.0).view(2, 4, 1)
    mask = torch.tensor([[False, False, True, True], [False, True, False, False]])
    assert predicting_states(hidden_BTD, mask)[:, 0].tolist() == [1.0, 2.0, 4.0]
    assert scatter_tokens(torch.tensor([1.0, 2.0, 3.0]), mask).tolist() == [[0, 0, 1, 2], [0, 3, 0, 0]]


def test_the_first_token_has_no_prediction() -> None:
    with pytest.raises(ValueError, match="first token"):
        predicting_states(torch.zeros(1, 2, 1), torch.ones(1, 2, dtype=torch.bool))


def test_chunk_follows_the_budget() -> None:
    assert chunk_tokens(1000, 8000) == 2
    assert chunk_tokens(10**9, 8) == 1
