from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.models import LoadContext, Tiny, WarmStart
from delta_lightning.models.warm_start import WINDOW, _batches, _loss, demonstrations_hash, train

SMALL = Tiny(hidden_size=16, layers=1, heads=2, kv_heads=1, intermediate_size=24)
DEMONSTRATIONS = [((40 + i, 50), (60 + i, 61, 1)[: 2 + i % 2] + (1,) * (1 - i % 2)) for i in range(10)]


def model_of(seed: int = 0) -> Any:
    return SMALL.load(LoadContext(seed=seed))


def test_loss_and_probability_against_float64_numpy() -> None:
    model = model_of()
    batch = [((40, 41, 42), (60, 1)), ((43,), (61, 62, 63, 1))]
    nll: list[list[float]] = []
    for prompt, answer in batch:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].double().numpy()
        shifted = logits - logits.max(-1, keepdims=True)
        logprobs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        nll.append([-logprobs[len(prompt) + t - 1, token] for t, token in enumerate(answer)])
    loss, probability = _loss(model, batch)
    assert loss.item() == pytest.approx(np.mean(nll[0] + nll[1]), rel=1e-5)
    assert probability == pytest.approx(np.mean([np.exp(-sum(row)) for row in nll]), rel=1e-4)


def test_training_reaches_the_target_and_stops_there() -> None:
    model = model_of()
    ticks: list[tuple[str, int, int]] = []
    options = WarmStart(target=0.3, batch_size=8, lr=1e-2, ramp=2, max_steps=300)
    result = train(model, DEMONSTRATIONS, options, LoadContext(tick=lambda *step: ticks.append(step)), seed=0)
    assert WINDOW <= result.steps < 300 and 0.3 <= result.probability < 0.8
    assert [step[1] for step in ticks] == list(range(1, result.steps + 1)) and ticks[0][2] == 300
    assert not model.training
    assert _loss(model, DEMONSTRATIONS)[1] > 0.3


def test_max_steps_is_the_end_and_the_same_seed_gives_the_same_weights() -> None:
    options = WarmStart(target=1.0, batch_size=4, ramp=1, max_steps=3)
    weights = []
    for seed in (0, 0, 1):
        model = model_of()
        assert train(model, DEMONSTRATIONS, options, LoadContext(), seed=seed).steps == 3
        weights.append(model.lm_head.weight.detach().clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_batches_are_full_and_every_pass_visits_each_example_once() -> None:
    batches = list(islice(_batches(DEMONSTRATIONS, WarmStart(batch_size=4), seed=0), 5))
    assert [len(batch) for batch in batches] == [4] * 5
    flat = [example for batch in batches for example in batch]
    assert set(Counter(flat[:10]).values()) == set(Counter(flat[10:]).values()) == {1}
    assert flat[:10] != flat[10:]


def test_prompts_are_not_learnt() -> None:
    """With an answer of one token the loss is that token's alone."""
    model = model_of()
    loss, _ = _loss(model, [((40, 41), (1,))])
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([[40, 41]])).logits[0, -1], -1)[1]
    assert loss.item() == pytest.approx(-expected.item(), rel=1e-5)


def test_hash_follows_content_and_order() -> None:
    assert demonstrations_hash([((1, 2), (3,))]) != demonstrations_hash([((1,), (2, 3))])
    assert demonstrations_hash([((1,), (2,)), ((3,), (4,))]) != demonstrations_hash([((3,), (4,)), ((1,), (2,))])
    assert demonstrations_hash(DEMONSTRATIONS) == demonstrations_hash(list(DEMONSTRATIONS))


@pytest.mark.parametrize(
    "fields", [{"target": 0}, {"target": 1.1}, {"lr": 0}, {"max_steps": 0}, {"batch_size": 0}, {"ramp": 0}]
)
def test_range_checks(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        WarmStart(**fields)
