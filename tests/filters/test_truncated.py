from __future__ import annotations

from dataclasses import replace

import torch

from delta_lightning.filters import Truncated
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import make_batch, mixed
from delta_lightning.types import RolloutBatch


def cut(batch: RolloutBatch, rows: list[int]) -> RolloutBatch:
    truncated_B = torch.zeros_like(batch.truncated_B)
    truncated_B[rows] = True
    return replace(batch, truncated_B=truncated_B)


BATCH = cut(
    make_batch([2] * 7, rewards=[1, 0, 0, 0, 1, 0, 0], groups=[4, 4, 2, 2, 9, 9, 9], valid=[True] * 5 + [True, False]),
    [1, 2, 3, 4, 5],
)


def test_cut_answers_leave_and_nothing_else_changes() -> None:
    kept = Truncated().apply(BATCH)
    assert kept.loss_mask_BT.any(1).tolist() == [True] + [False] * 6
    assert torch.equal(kept.loss_mask_BT[0], BATCH.loss_mask_BT[0])
    assert not bool(kept.behaviour_logprobs_BT[1:].any() | kept.raw_logprobs_BT[1:].any())
    assert torch.equal(kept.rewards_B, BATCH.rewards_B) and torch.equal(kept.valid_B, BATCH.valid_B)


def test_keeps_groups_with_a_finished_and_judged_answer() -> None:
    """Group 2 has none; group 9's only finished answer has no verdict."""
    assert dict(zip([2, 4, 9], Truncated().keep_groups(BATCH).tolist(), strict=True)) == {2: False, 4: True, 9: False}
    assert torch.equal(Truncated().keep_groups(Truncated().apply(BATCH)), Truncated().keep_groups(BATCH))


def test_without_cut_answers_nothing_changes() -> None:
    batch = cut(mixed().batch, [])
    assert torch.equal(Truncated().apply(batch).loss_mask_BT, batch.loss_mask_BT)
    assert bool(Truncated().keep_groups(batch).all())


def test_laws_hold_where_answers_are_cut() -> None:
    """Rows in another order give the same decisions."""
    world = mixed()
    world = replace(world, batch=cut(world.batch, [0, 4, 5, 6, 7, 11]))
    order = torch.tensor([5, 0, 11, 7, 2, 9, 1, 3, 10, 4, 8, 6])
    batch, moved = View(world).batch, View(world.rows(order)).batch
    assert torch.equal(Truncated().apply(batch).loss_mask_BT[order], Truncated().apply(moved).loss_mask_BT)
    assert Truncated().keep_groups(batch).tolist() == Truncated().keep_groups(moved).tolist() == [True, False, True]


def test_a_rank_without_rows() -> None:
    empty = BATCH.rows(slice(0, 0))
    assert Truncated().keep_groups(empty).shape == (0,)
    assert Truncated().apply(empty).num_sequences == 0
