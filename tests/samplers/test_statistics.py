"""20,000 completions of two tokens against their exact distribution, by a chi-square test; seeds are fixed, so nothing flakes.

The exact distribution is that of plain `generate`: one forward pass for each prefix and the warpers of transformers.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from support.models import EOS, tiny_model
from support.sampling import open_session, prompts, sample

VOCABULARY, SAMPLES = 8, 20_000
LEAST = 1e-4  # p-value of the fixed seeds; those below are between 0.3 and 1
SETTINGS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7},
    "top_p": {"top_p": 0.7},
    "top_k": {"top_k": 3},
    "min_p": {"min_p": 0.3},
    "all": {"temperature": 0.8, "top_k": 6, "top_p": 0.9, "min_p": 0.15},
    "bad tokens": {"bad_token_ids": (3, 4), "top_p": 0.8},
}


def model() -> Any:
    made = tiny_model(vocabulary=VOCABULARY)
    made.lm_head.weight.data.mul_(2)  # probabilities that differ enough for the cuts to cut
    return made


def next_token(logits: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
    """As `generate` warps it, [1, V] float64."""
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "bad_token_ids": ()} | params
    if given["bad_token_ids"]:
        logits = SuppressTokensLogitsProcessor(list(given["bad_token_ids"]))(None, logits)
    logits = TemperatureLogitsWarper(given["temperature"])(None, logits)
    if given["top_k"]:
        logits = TopKLogitsWarper(given["top_k"])(None, logits)
    if given["top_p"] < 1:
        logits = TopPLogitsWarper(given["top_p"])(None, logits)
    if given["min_p"]:
        logits = MinPLogitsWarper(given["min_p"])(None, logits)
    return torch.softmax(logits.double(), -1)


@torch.no_grad()
def exact(params: dict[str, Any]) -> torch.Tensor:
    """Probability of each first and second token, [V, V]; all of a first token's mass at column 0 where it ends."""
    prompt, policy = prompts([4])[0].token_ids, model()
    first = next_token(policy(input_ids=torch.tensor([prompt])).logits[:, -1], params)[0]
    joint = torch.zeros(VOCABULARY, VOCABULARY, dtype=torch.float64)
    for token in range(VOCABULARY):
        if token == EOS:
            joint[token, 0] = first[token]
        elif first[token] > 0:
            logits = policy(input_ids=torch.tensor([[*prompt, token]])).logits[:, -1]
            joint[token] = first[token] * next_token(logits, params)[0]
    return joint


def p_value(params: dict[str, Any], expected: torch.Tensor) -> float:
    done = sample(open_session(model(), max_rows=1024), prompts([4]), SAMPLES, max_new_tokens=2, **params)
    counts = torch.zeros(VOCABULARY, VOCABULARY, dtype=torch.float64)
    for c in done.values():
        counts[c.token_ids[0], c.token_ids[1] if len(c.token_ids) > 1 else 0] += 1
    assert int(counts.sum()) == SAMPLES
    assert not bool(counts[expected == 0].any()), "a token was drawn that the cut leaves out"
    wanted, got = expected.flatten() * SAMPLES, counts.flatten()
    rare = wanted < 5
    wanted, got = (torch.cat([x[~rare], x[rare].sum()[None]]) for x in (wanted, got))
    wanted, got = wanted[wanted > 0], got[wanted > 0]
    assert len(wanted) > 5, "or the cut leaves nothing to compare"
    chi2 = ((got - wanted) ** 2 / wanted).sum()
    return float(torch.special.gammaincc(torch.tensor((len(wanted) - 1) / 2, dtype=torch.float64), chi2 / 2))


@pytest.mark.parametrize("setting", SETTINGS)
def test_completions_follow_the_distribution_of_plain_generate(setting: str) -> None:
    assert p_value(SETTINGS[setting], exact(SETTINGS[setting])) > LEAST


@pytest.mark.parametrize(
    ("drawn", "claimed"),
    [({"temperature": 0.7}, {"temperature": 0.77}), ({"top_k": 5}, {"top_k": 6})],
)
def test_the_test_sees_small_faults(drawn: dict[str, Any], claimed: dict[str, Any]) -> None:
    assert p_value(drawn, exact(claimed)) < 1e-9
