"""Rollouts of a checkpoint come back as they were, and are not taken for those of other prompts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.trainer.rollout_state import Numbered, packed, unpacked, with_prompts
from delta_lightning.types import Completion, Prompt, Rollout, Status, Verdict

PROMPTS = [
    (group, Prompt(id=f"p{group}", text=f"text {group}", token_ids=(5, group), source="here", reference={"answer": str(group)}))
    for group in (0, 2)
]


def rollouts() -> list[Numbered]:
    found = []
    for group, prompt in PROMPTS:
        for index in range(2):
            tokens = list(range(group + index))  # the first has none
            answer = Completion(
                prompt_id=prompt.id, sample_index=index, token_ids=tokens, text="é" * index, finish_reason="stop",
                version=7, logprobs=[-0.1 * t for t in tokens], raw_logprobs=[-1 / 3 for _ in tokens],
            )  # fmt: skip
            verdict = Verdict(
                status=[Status.TIMEOUT, Status.CORRECT][index], reward=index / 3, components={"a": 1.0} if index else {},
                reason="why", token_weights=[0.5] * len(tokens) if group else None, measures={"passed": 0.1},
            )  # fmt: skip
            found.append((group, Rollout(prompt=prompt, completion=answer, verdict=verdict, counts=bool(index))))
    return found


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    given = rollouts()
    torch.save(packed(given), tmp_path / "state.pt")
    found = with_prompts(unpacked(torch.load(tmp_path / "state.pt", weights_only=True)), PROMPTS, 2)
    for (group, want), (other, got) in zip(given, found, strict=True):
        assert group == other and got.prompt is want.prompt and got.counts == want.counts and got.verdict == want.verdict
        exact = {"logprobs": [], "raw_logprobs": []}
        assert replace(got.completion, **exact) == replace(want.completion, **exact)
        for name in exact:  # in float32, as a batch holds them
            values = [torch.tensor(getattr(one.completion, name), dtype=torch.float32) for one in (got, want)]
            assert torch.equal(*values)
    assert math.isclose(found[3][1].completion.raw_logprobs[0], -1 / 3, rel_tol=1e-7)


def test_a_second_time_changes_nothing() -> None:
    once = unpacked(packed(rollouts()))
    assert unpacked(packed(once)) == once and unpacked(packed([])) == []


def test_other_prompts_are_refused() -> None:
    stored = unpacked(packed(rollouts()))
    other = [(group, replace(prompt, token_ids=(5, 9))) for group, prompt in PROMPTS]
    for prompts, completions, got in (
        (other, 2, "prompt p0 of 2 tokens where p0 was sampled"),
        (PROMPTS[:1], 2, "no prompt where p2 was sampled"),
        (PROMPTS, 4, "2 prompts x 4 where 4 completions were sampled"),
    ):
        with pytest.raises(ConfigError, match=got):
            with_prompts(stored, prompts, completions)
