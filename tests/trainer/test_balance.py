"""Ranks share the work of every optimiser step; whole groups move, and nothing else changes."""

from __future__ import annotations

from typing import Any

import torch

from delta_lightning.trainer.balance import assigned, balanced
from delta_lightning.trainer.collate import Cut, VerdictColumns, collate, tokens_of
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Completion, Prompt, Rollout, Status, Verdict
from support.world import run_ranks

CUT = Cut(num_groups=8, updates=2, micro=1)


def rollout(group: int, sample: int) -> tuple[int, Rollout]:
    """Groups of even number, which rank 0 of 2 samples, are five times as long."""
    length = 1 + sample + (10 if group % 2 == 0 else 2) * (1 + group // 4)
    prompt = Prompt(id=f"p{group}", text="q", token_ids=(7, 8), source="s", reference={})
    answer = Completion(
        prompt_id=prompt.id, sample_index=sample, token_ids=tuple(range(length)), text="t", finish_reason="stop", version=3,
        logprobs=tuple(-0.1 * k for k in range(length)), raw_logprobs=tuple(-0.3 * k for k in range(length)),
    )  # fmt: skip
    verdict = Verdict(status=Status.CORRECT, reward=0.1 * group, components={"a": 0.7}, token_weights=tuple([0.3] * length))
    return group, Rollout(prompt=prompt, completion=answer, verdict=verdict, counts=sample != 1)


def sampled(ranks: Ranks) -> list[tuple[int, Rollout]]:
    return [rollout(group, sample) for group in range(8) if group % ranks.size == ranks.rank for sample in range(3)]


def test_every_update_is_even_and_keeps_its_groups() -> None:
    costs = [{0: 9.0, 2: 8.0, 4: 1.0, 6: 1.0}, {1: 2.0, 3: 1.0, 5: 1.0, 7: 1.0}]
    found = assigned(costs, CUT)
    assert sorted(found.places) == list(range(8))
    first = [sum({**costs[0], **costs[1]}[g] for g in range(4) if found.places[g] == rank) for rank in (0, 1)]
    assert sorted(first) == [10.0, 10.0]
    assert [found.places[group] for group in (4, 6, 5, 7)] == [0, 0, 1, 1], "what is even stays where it is"
    assert (found.before, found.after, found.mean) == (19.0, 12.0, 12.0)


def test_one_rank_keeps_what_it_has() -> None:
    rollouts, book = sampled(Ranks()), MetricBook()
    assert balanced(rollouts, CUT, float, Ranks(), book) == rollouts
    assert book.take(Ranks()) == {}


def work() -> tuple[list[int], dict[str, Any], dict[str, float], int]:
    ranks, book = Ranks.current(), MetricBook()
    got = balanced(sampled(ranks), CUT, float, ranks, book)
    batch, _ = collate(got, cut=CUT, completions=3, columns=VerdictColumns(components=("a",), token_weights=True))
    tokens = sum(tokens_of(one) for _, one in got)
    return [group for group, _ in got], dict(vars(batch)), book.take(ranks), tokens


def test_two_ranks_get_the_same_batch_more_evenly() -> None:
    ranks = run_ranks(2, work)
    assert sorted(group for groups, *_ in ranks for group in groups) == sorted(g for g in range(8) for _ in range(3))
    assert not {*ranks[0][0]} & {*ranks[1][0]}, "groups stay whole"
    values = ranks[0][2]
    assert values["balance/max_over_mean"] < 1.1 < 1.4 < values["balance/max_over_mean_before"]
    assert 0 < values["balance/moved_share"] <= 0.5
    whole, _ = collate(sampled(Ranks()), cut=CUT, completions=3, columns=VerdictColumns(components=("a",), token_weights=True))
    width = whole.token_ids_BT.shape[1]
    order = torch.cat([fields["sequence_ids_B"] for _, fields, *_ in ranks]).argsort()
    rows = whole.sequence_ids_B.argsort()
    for name, value in vars(whole).items():
        if isinstance(value, torch.Tensor):
            parts = [fields[name] for _, fields, *_ in ranks]
            if name.endswith("_BT"):
                fill = 1.0 if name == "token_weights_BT" else 0.0
                parts = [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=fill) for part in parts]
            assert torch.equal(torch.cat(parts)[order], value[rows]), name
