"""Parameters and the state of optimisers."""

from __future__ import annotations

import pytest
import torch

from delta_lightning.models import Tiny
from delta_lightning.planning.kept import Weights, optimizer_cost


def test_weights_of_a_tied_model_count_once() -> None:
    model = Tiny(hidden_size=64, layers=2, heads=4, kv_heads=2, intermediate_size=96, tie_embeddings=True).meta()
    weights = Weights.of(model)
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    assert weights.layer == layer
    assert weights.root == weights.count - 2 * layer == 258 * 64 + 64
    assert weights.total == weights.trained == 4 * weights.count


def test_frozen_parameters_are_not_trained() -> None:
    model = Tiny(hidden_size=64, layers=1).meta().requires_grad_(False)
    model.model.norm.requires_grad_(True)
    weights = Weights.of(model)
    assert (weights.trained_count, weights.largest) == (64, 64)


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda p: torch.optim.AdamW(p), 8.0),
        (lambda p: torch.optim.SGD(p, lr=0.1), 0.0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 4.0),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 12.0),
    ],
)
def test_state_of_optimisers(make: object, state: float) -> None:
    cost = optimizer_cost(make, torch.float32)  # type: ignore[arg-type]
    assert cost is not None and cost.state == state


def test_moments_follow_the_parameters() -> None:
    cost = optimizer_cost(lambda p: torch.optim.AdamW(p), torch.bfloat16)
    assert cost is not None and cost.state == 4.0


def test_an_optimiser_that_needs_a_gpu_is_not_guessed() -> None:
    class Elsewhere(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            raise NotImplementedError("CUDA only")

    assert optimizer_cost(lambda p: Elsewhere(p, lr=0.1), torch.float32) is None
