"""What is refused before anything is sampled, and how the context bounds a completion."""

from __future__ import annotations

import dataclasses

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.samplers.rows import groups
from delta_lightning.types import SamplingParams
from support.models import tiny_model
from support.sampling import open_session, prompts, sample


@pytest.mark.parametrize(
    ("lengths", "group", "message"),
    [
        ([3, 0], 2, "prompt p1: wanted at least one token, got 0"),
        ([3, 256], 2, "prompt p1: wanted at most 255 tokens, since the model reads 256, got 256"),
        ([3, 300], 2, "got 300"),
        ([3], 0, "num_completions: wanted at least 1, got 0"),
    ],
)
def test_what_cannot_be_sampled_is_refused_at_the_call(lengths: list[int], group: int, message: str) -> None:
    session = open_session(tiny_model(vocabulary=8))
    with pytest.raises(ConfigError, match=message):
        session.generate(prompts(lengths), num_completions=group, params=SamplingParams(), seed=0)  # not iterated


def test_tokens_that_the_model_does_not_know_are_refused_at_the_call() -> None:
    """Those of another model's tokenizer; an embedding would end the process on a GPU."""
    session = open_session(tiny_model(vocabulary=8))
    strange = [dataclasses.replace(prompt, token_ids=(3, 8, -1)) for prompt in prompts([3])]
    with pytest.raises(ConfigError, match="prompt p0: wanted token ids from 0 to 7, the model's vocabulary, got 8, -1"):
        session.generate(strange, num_completions=1, params=SamplingParams(), seed=0)


def test_no_prompts_no_completions() -> None:
    assert sample(open_session(tiny_model(vocabulary=8)), [], 4) == {}


def test_two_prompts_of_one_id_are_refused() -> None:
    [prompt] = prompts([3])
    with pytest.raises(ConfigError, match="each prompt once"):
        groups([prompt, prompt], num_completions=1, params=SamplingParams(), seed=0, context=None)


def test_the_context_bounds_each_prompts_completions() -> None:
    given = prompts([4, 251, 255])
    done = sample(open_session(tiny_model(vocabulary=8)), given, 2, max_new_tokens=20, bad_token_ids=(1,))
    assert {key: len(c.token_ids) for key, c in done.items()} == {
        ("p0", 0): 20, ("p0", 1): 20, ("p1", 0): 5, ("p1", 1): 5, ("p2", 0): 1, ("p2", 1): 1,
    }  # fmt: skip
    assert {c.finish_reason for c in done.values()} == {"length"}


def test_groups_stand_in_one_order_and_draws_have_keys_of_their_own() -> None:
    given = prompts([7, 3, 3])
    one = groups(given, num_completions=2, params=SamplingParams(), seed=0, context=None)
    other = groups(given[::-1], num_completions=2, params=SamplingParams(), seed=0, context=None)
    assert [entry.rows[0].prompt.id for entry in one] == ["p1", "p2", "p0"] == [entry.rows[0].prompt.id for entry in other]
    keys = [row.key for entry in one for row in entry.rows]
    assert keys == [row.key for entry in other for row in entry.rows] and len(set(keys)) == 6
