"""Room for completions in the model's context, and what is said of sampling that cuts the distribution."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.trainer.checks import HeldOut, check_room, sampling_notes
from delta_lightning.types import SamplingParams
from support.sampling import prompts


def room(lengths: list[int], new: int, context: int | None) -> list[str]:
    given = prompts(lengths)
    data: Any = SimpleNamespace(lengths=lambda: [len(prompt.token_ids) for prompt in given])
    plan: Any = SimpleNamespace(sampling=SamplingParams(max_new_tokens=new))
    return check_room(data, plan, context)


def test_completions_that_the_context_cuts_are_counted() -> None:
    assert room([10, 20, 30], 70, 100) == []
    assert room([10, 20, 30], 500, None) == []
    [line] = room([10, 20, 30], 85, 100)
    assert "2 of 3 prompts leave less than max_new_tokens=85" in line and "the first after 70 tokens" in line


def test_a_limit_out_of_reach_and_a_prompt_that_fills_the_context_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.sampling\.max_new_tokens: wanted at most 90.*got 91"):
        room([10, 20, 30], 91, 100)
    with pytest.raises(ConfigError, match=r"data\.max_prompt_tokens: wanted at most 99.*got 100"):
        room([10, 20, 100], 5, 100)


def test_cuts_are_said_and_evaluation_has_its_own() -> None:
    assert sampling_notes(SamplingParams(temperature=0.7, stop=("x",))) == []
    cut = SamplingParams(top_p=0.9, top_k=5, min_p=0.1, stop=("x",))
    [line] = sampling_notes(cut)
    assert "top_p=0.9, top_k=5, min_p=0.1" in line
    assert HeldOut(temperature=0.5).sampling(cut) == SamplingParams(temperature=0.5, stop=("x",))
