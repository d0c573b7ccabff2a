"""Margins of whole gradients against gradients that are written out, token by token; and against the proxies' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from benchmarks.proxies.truth import HEAD, TiedGeometry, forward_mode, token_logprobs
from torch import Tensor

from delta_lightning.credit.proxies import HeadGradient
from delta_lightning.credit.proxies.tokens import TokenStream
from delta_lightning.functional.delta import coefficients
from delta_lightning.functional.feature_geometry import FeatureGeometry
from delta_lightning.functional.sides import Sides
from delta_lightning.functional.true_margins import LogProbs, ParameterGeometry, Parameters
from delta_lightning.models.scorer import Scorer
from delta_lightning.testing.worlds import make_batch
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import Need, RolloutBatch
from support.models import tiny_model

N, TEMPERATURE = 9, 1.2
INSIDE = 1e-6  # `transformers` takes norms and the softmax of attention in float32, even of a float64 model


def network() -> tuple[dict[str, Tensor], Callable[[], Iterator[LogProbs]], Sides, Tensor]:
    """A network of two layers, whose tokens come in two chunks."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, targets = draw(N, 3), torch.randint(5, (N,), generator=generator)
    advantages = draw(N)
    advantages[3] = 0
    sides = Sides(advantages)

    def chunks() -> Iterator[LogProbs]:
        for part in (slice(0, 4), slice(4, N)):

            def function(p: Parameters, part: slice = part) -> Tensor:
                logits = (inputs[part] @ p["first"]).tanh() @ p["second"]
                return logits.log_softmax(-1).gather(1, targets[part, None])[:, 0]

            yield LogProbs(part, function)

    return {"first": draw(3, 4), "second": draw(4, 5), "unused": draw(2)}, chunks, sides, sides.weights_2N * draw(N).abs()


def written_out(parameters: Parameters, chunks: Callable[[], Iterator[LogProbs]]) -> Tensor:
    """One backward pass for each token, [N, P]."""
    rows = []
    for _, function in chunks():
        leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        for logprob in function(leaves):
            wrt = list(leaves.values())
            found = torch.autograd.grad(logprob, wrt, retain_graph=True, allow_unused=True, materialize_grads=True)
            rows.append(torch.cat([gradient.flatten() for gradient in found]))
    return torch.stack(rows)


def test_against_gradients_written_out() -> None:
    parameters, chunks, sides, weights_2N = network()
    literal = FeatureGeometry(lambda: (written_out(parameters, chunks),), sides)
    geometry = ParameterGeometry(chunks, parameters, sides)
    torch.testing.assert_close(geometry.margins(weights_2N), literal.margins(weights_2N), rtol=0, atol=1e-12)
    torch.testing.assert_close(geometry.own_distances(weights_2N), literal.own_distances(weights_2N), rtol=0, atol=1e-12)


def test_refuses_several_units() -> None:
    parameters, chunks, sides, _ = network()
    with pytest.raises(ValueError, match="one unit"):
        ParameterGeometry(chunks, parameters, Sides(sides.advantages_N, torch.zeros(N, dtype=torch.int64), 2))


def language_model(family: str, **changes: Any) -> tuple[Any, RolloutBatch, Sides]:
    batch = make_batch([3, 5, 4, 2], rewards=[1, 0, 0, 1], groups=[0, 0, 1, 1])
    advantages_B = torch.tensor([1.0, -0.5, -1.5, 0.7])
    advantages_N = advantages_B[:, None].expand(batch.loss_mask_BT.shape)[batch.loss_mask_BT]
    return forward_mode(tiny_model(family, vocabulary=13, **changes)), batch, Sides(advantages_N)


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
@pytest.mark.parametrize("tied", [True, False])
def test_of_a_language_model(family: str, tied: bool) -> None:
    model, batch, sides = language_model(family, tie_word_embeddings=tied)
    scorer = Scorer(model=model.requires_grad_(), temperature=TEMPERATURE)
    logprobs_N = scorer.score(batch, frozenset()).logprobs_BT[batch.loss_mask_BT]
    literal_NP = torch.stack([  # the scorer's own log-probabilities and the optimiser's own parameters
        torch.cat([g.flatten() for g in torch.autograd.grad(one, list(model.parameters()), retain_graph=True)])
        for one in logprobs_N
    ])  # fmt: skip
    expected = FeatureGeometry(lambda: (literal_NP,), sides)
    geometry = TiedGeometry(model, token_logprobs(model, batch, temperature=TEMPERATURE, rows=3), sides)
    wanted = expected.margins(sides.weights_2N)
    torch.testing.assert_close(geometry.margins(sides.weights_2N), wanted, rtol=0, atol=INSIDE * float(wanted.abs().max()))
    torch.testing.assert_close(coefficients(geometry), coefficients(expected), rtol=0, atol=INSIDE)
    if not tied:
        shares = geometry.shares(sides.weights_2N)
        torch.testing.assert_close(shares["untied"], wanted, rtol=0, atol=INSIDE * float(wanted.abs().max()))


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_the_head_alone_is_head_gradient(family: str) -> None:
    model, batch, sides = language_model(family)
    geometry = TiedGeometry(model, token_logprobs(model, batch, temperature=TEMPERATURE), sides)
    view = RolloutView(
        batch, micro=[slice(0, 3), slice(3, 4)], scorer=Scorer(model=model, temperature=TEMPERATURE),
        needs=frozenset({Need.HIDDEN, Need.HEAD}), cache=HiddenCache(), ranks=Ranks(), seed=(0, 0),
    )  # fmt: skip
    proxy = HeadGradient().bind(TokenStream(view), sides).margins(sides.weights_2N) / TEMPERATURE**2
    torch.testing.assert_close(geometry.shares(sides.weights_2N)["head"], proxy, rtol=0, atol=1e-10 * float(proxy.abs().max()))


def test_the_head_may_differ_from_the_embedding() -> None:
    model, batch, _ = language_model("qwen3", tie_word_embeddings=False)
    chunk = next(iter(token_logprobs(model, batch, temperature=1.0)()))
    parameters = dict(model.named_parameters())
    doubled = chunk.function(parameters | {HEAD: 2 * parameters[HEAD]})
    assert not torch.allclose(doubled, chunk.function(parameters))
