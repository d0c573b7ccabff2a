"""Ranks that share an engine ask it for the same things, in the same order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import SamplerContext
from delta_lightning.samplers.teams import Team
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Prompt
from support.world import run_ranks


def prompt(name: str, *tokens: int) -> Prompt:
    return Prompt(id=name, text=f"text of {name}", token_ids=tokens, source="test", reference={"tests": name})


def team_of(rank: int, size: int, world: int, everything: list[Any]) -> Team:
    """A rank's team where the ranks give what stands in `everything`."""
    context = SamplerContext(
        model=None, tokenizer=None, device=torch.device("cpu"), rank=rank, world_size=world, share=lambda value: everything
    )
    return Team.of(context, size, setting="size")


def refuse(value: Any) -> list[Any]:
    raise AssertionError("a rank alone has nothing to share")


def test_neighbours_are_a_team() -> None:
    given = ["a", "b", "c", "d", "e", "f"]
    assert [team_of(rank, 2, 6, given).gather(given[rank]) for rank in range(6)] == [
        ["a", "b"], ["a", "b"], ["c", "d"], ["c", "d"], ["e", "f"], ["e", "f"],
    ]  # fmt: skip
    assert team_of(4, 3, 6, given).gather("e") == ["d", "e", "f"]
    assert team_of(4, 6, 6, given).gather("e") == given


@pytest.mark.parametrize(("size", "world"), [(2, 1), (2, 3), (4, 6), (3, 2)])
def test_ranks_that_do_not_divide_into_teams_are_refused(size: int, world: int) -> None:
    with pytest.raises(ConfigError, match=f"size: wanted a divisor of the {world} training processes, got {size}"):
        team_of(0, size, world, [])


def test_alone_nothing_is_exchanged_and_repeats_stay() -> None:
    team = Team(size=1, rank=3, share=refuse)
    same = [prompt("a", 1), prompt("a", 1)]
    assert [p.id for p in team.prompts(same)] == ["a", "a"], "the engine's own check refuses them"
    assert team.sequences([[1, 2], (1, 2), [3]]) == [(1, 2), (3,)]


def bare(*prompts: Prompt) -> list[Prompt]:
    """As another rank sends them."""
    return Team(size=1, rank=0, share=refuse).prompts(prompts)


def test_a_prompt_of_several_ranks_comes_once_without_its_reference() -> None:
    a, b, c = prompt("a", 1, 2), prompt("b", 3), prompt("c", 4)
    for rank, own in ((0, [a, b]), (1, [b, c])):
        got = team_of(rank, 2, 2, [bare(a, b), bare(b, c)]).prompts(own)
        assert [(p.id, p.token_ids) for p in got] == [("a", (1, 2)), ("b", (3,)), ("c", (4,))]
        assert all(p.text == "" and not p.reference for p in got)


def test_an_id_with_two_meanings_and_one_that_a_rank_repeats_are_left_for_the_engine_to_refuse() -> None:
    one, other = prompt("a", 1), prompt("a", 2)
    assert [p.id for p in team_of(0, 2, 2, [bare(one), bare(other)]).prompts([one])] == ["a", "a"]
    assert [p.id for p in team_of(0, 2, 2, [bare(one, one), bare()]).prompts([one, one])] == ["a", "a"]


def on_a_rank() -> tuple[list[str], list[tuple[int, ...]]]:
    ranks = Ranks.current()
    team = Team(size=2, rank=ranks.rank, share=ranks.all_objects)
    own = [prompt(f"p{ranks.rank}-{i}", ranks.rank, i) for i in range(ranks.rank)]
    return [p.id for p in team.prompts(own)], team.sequences([[0, 1], [ranks.rank]])


def test_over_real_ranks() -> None:
    results = run_ranks(4, on_a_rank)
    assert results[0] == results[1] == (["p1-0"], [(0, 1), (0,), (1,)])
    assert results[2] == results[3] == (["p2-0", "p2-1", "p3-0", "p3-1", "p3-2"], [(0, 1), (2,), (3,)])
