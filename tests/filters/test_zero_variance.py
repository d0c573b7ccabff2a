from __future__ import annotations

import torch

from delta_lightning.filters import ZeroVariance
from delta_lightning.testing.worlds import make_batch

BATCH = make_batch(
    [2] * 11,
    rewards=[1, 0, 0.9, 0.9, 0.9, 0, 0, 1, 0, 1, 1 + 1e-7],
    groups=[8, 8, 3, 3, 3, 5, 5, 5, 0, 1, 1],
    valid=[True] * 7 + [False] + [True] * 3,
)


def test_keeps_groups_whose_valid_rewards_differ_by_ascending_id() -> None:
    """Group 5 differs only by a row without verdict, group 0 has one row, group 1 differs by rounding."""
    keep_P = ZeroVariance().keep_groups(BATCH)
    assert dict(zip([0, 1, 3, 5, 8], keep_P.tolist(), strict=True)) == {0: False, 1: False, 3: False, 5: False, 8: True}


def test_masks_the_others_and_changes_nothing_else() -> None:
    kept = ZeroVariance().apply(BATCH)
    assert kept.loss_mask_BT.any(1).tolist() == [True, True] + [False] * 9
    assert torch.equal(kept.loss_mask_BT[:2], BATCH.loss_mask_BT[:2])
    assert not bool(kept.raw_logprobs_BT[2:].any() | kept.behaviour_logprobs_BT[2:].any())
    assert torch.equal(kept.raw_logprobs_BT[:2], BATCH.raw_logprobs_BT[:2])
    assert torch.equal(kept.rewards_B, BATCH.rewards_B)
    assert torch.equal(kept.valid_B, BATCH.valid_B)
    assert torch.equal(kept.attention_mask_BT, BATCH.attention_mask_BT)


def test_a_rank_without_rows() -> None:
    empty = BATCH.rows(slice(0, 0))
    assert ZeroVariance().keep_groups(empty).shape == (0,)
    assert ZeroVariance().apply(empty).num_sequences == 0
