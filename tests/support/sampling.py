"""What tests of samplers share: prompts, a session on a tiny model, and what it gives."""

from __future__ import annotations

from typing import Any

import torch

from delta_lightning.interfaces import SamplerContext, SamplerSession
from delta_lightning.samplers import HFSampler
from delta_lightning.types import Completion, Prompt, SamplingParams
from support.models import NumberTokenizer

Done = dict[tuple[str, int], Completion]


def context(model: object, tokenizer: object | None = None, **changes: Any) -> SamplerContext:
    return SamplerContext(model=model, tokenizer=tokenizer or NumberTokenizer(), device=torch.device("cpu"), **changes)


def open_session(model: object, tokenizer: object | None = None, **options: Any) -> SamplerSession:
    return HFSampler(**options).open(context(model, tokenizer))


def prompts(lengths: list[int]) -> list[Prompt]:
    return [
        Prompt(id=f"p{i}", text="", token_ids=tuple(2 + k % 6 for k in range(n)), source="test", reference={})
        for i, n in enumerate(lengths)
    ]


def sample(session: SamplerSession, given: list[Prompt], group: int, seed: int = 0, **params: Any) -> Done:
    options = SamplingParams(**({"max_new_tokens": 12} | params))
    done = list(session.generate(given, num_completions=group, params=options, seed=seed))
    result = {(c.prompt_id, c.sample_index): c for c in done}
    assert len(result) == len(done)
    return result


def tokens(done: Done) -> dict[tuple[str, int], list[int]]:
    return {key: list(completion.token_ids) for key, completion in done.items()}


def full_logprobs(model: Any, prompt: Prompt, completion: Completion, temperature: float = 1.0) -> torch.Tensor:
    """The whole distribution at each token of the completion, [T, V], by one plain forward pass without a cache."""
    ids = torch.tensor([[*prompt.token_ids, *completion.token_ids]])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt.token_ids) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1)


def assert_scores(model: Any, given: list[Prompt], done: Done, temperature: float = 1.0, atol: float = 1e-5) -> None:
    """The completions' raw log-probabilities are the model's own."""
    by_id = {prompt.id: prompt for prompt in given}
    for c in done.values():
        expected = full_logprobs(model, by_id[c.prompt_id], c, temperature)
        expected = expected.gather(1, torch.tensor(list(c.token_ids))[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(list(c.raw_logprobs)), expected, atol=atol, rtol=0)


def largest_gap(model: Any, given: list[Prompt], done: Done, temperature: float = 1.0) -> float:
    """Largest difference of the completions' raw log-probabilities from the model's own; 0 without completions."""
    by_id, gaps = {prompt.id: prompt for prompt in given}, [0.0]
    for c in done.values():
        wanted = full_logprobs(model, by_id[c.prompt_id], c, temperature)
        wanted = wanted.gather(1, torch.tensor(list(c.token_ids))[:, None])[:, 0]
        gaps.append(float((wanted - torch.tensor(list(c.raw_logprobs))).abs().max()))
    return max(gaps)


def shift(model: Any, scale: float = 0.05) -> None:
    """Moves every weight, each time another way, and the same way on every rank."""
    generator = torch.Generator().manual_seed(int(1e6 * float(next(model.parameters()).detach().abs().sum())) % 2**31)
    with torch.no_grad():
        for value in model.parameters():
            value += scale * torch.randn(value.shape, generator=generator)


def wide_prompts(lengths: list[int]) -> list[Prompt]:
    """Prompts over most of the vocabulary of a tiny model, each another."""
    return [
        Prompt(id=f"p{i}", text="", token_ids=tuple(2 + (7 * k + i) % 250 for k in range(n)), source="test", reference={})
        for i, n in enumerate(lengths)
    ]
