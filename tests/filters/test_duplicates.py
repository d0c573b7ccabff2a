from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.filters import Duplicates, Truncated
from delta_lightning.testing.worlds import PROMPT, make_batch, mixed
from delta_lightning.types import RolloutBatch
from support import reference_corrections as reference


def batch_of(answers: list[tuple[int, tuple[int, ...]]], *, valid: list[bool] | None = None, pad: int = 1) -> RolloutBatch:
    """One row per (group, completion); prompts are random and differ."""
    lengths = [len(tokens) for _, tokens in answers]
    batch = make_batch(lengths, rewards=[0.0] * len(answers), groups=[group for group, _ in answers], valid=valid, pad=pad)
    token_ids_BT = batch.token_ids_BT.clone()
    for row, (_, tokens) in enumerate(answers):
        token_ids_BT[row, PROMPT : PROMPT + len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
    return replace(batch, token_ids_BT=token_ids_BT)


def trained(batch: RolloutBatch) -> list[bool]:
    return Duplicates().apply(batch).loss_mask_BT.any(1).tolist()


def test_first_copy_of_a_group_stays() -> None:
    batch = batch_of([(0, (1, 2, 3)), (0, (1, 2)), (0, (1, 2, 3)), (7, (1, 2, 3)), (0, (1, 2, 3)), (7, (1, 2, 4))])
    assert trained(batch) == [True, True, False, True, False, True]
    assert bool(Duplicates().keep_groups(batch).all()) and Duplicates().keep_groups(batch).shape == (2,)


def test_length_tells_an_answer_from_one_that_goes_on_with_the_padding_token() -> None:
    assert trained(batch_of([(0, (5, 0)), (0, (5,)), (0, (5, 0, 0)), (0, (5, 0))])) == [True, True, True, False]


def test_which_copy_stays_is_a_matter_of_ids_and_not_of_rows() -> None:
    batch = batch_of([(0, (1, 2)), (0, (3, 4)), (0, (1, 2)), (0, (1, 2))])
    order = torch.tensor([3, 1, 2, 0])
    moved = batch.rows(order)
    assert trained(moved) == [False, True, False, True]
    assert moved.sequence_ids_B[torch.tensor(trained(moved))].tolist() == [1, 0]


def test_copies_without_verdict_stand_for_nobody() -> None:
    batch = batch_of([(0, (1, 2)), (0, (1, 2)), (0, (1, 2))], valid=[False, True, True])
    assert trained(batch) == [False, True, False]


def test_does_not_look_at_the_mask() -> None:
    """A copy that another filter masked still is the first: its copies were cut like it."""
    batch = batch_of([(0, (1, 2)), (0, (1, 2)), (0, (3,))])
    batch = replace(batch, truncated_B=torch.tensor([True, True, False]))
    both = Duplicates().apply(Truncated().apply(batch))
    assert both.loss_mask_BT.any(1).tolist() == [False, False, True]
    assert torch.equal(both.loss_mask_BT, Truncated().apply(Duplicates().apply(batch)).loss_mask_BT)


answers = st.lists(
    st.tuples(st.integers(0, 1), st.lists(st.integers(0, 1), min_size=1, max_size=3).map(tuple), st.booleans()),
    min_size=1,
    max_size=10,
)


@settings(deadline=None, max_examples=50)
@given(answers, st.integers(1, 4), st.randoms(use_true_random=False))
def test_equals_the_reference_in_any_order_and_padding(rows: list, pad: int, random: object) -> None:
    batch = batch_of([(group, tokens) for group, tokens, _ in rows], valid=[judged for *_, judged in rows], pad=pad)
    wanted = reference.later_copies([(i, group, tokens, judged) for i, (group, tokens, judged) in enumerate(rows)])
    kept = [judged and not again for (*_, judged), again in zip(rows, wanted, strict=True)]
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert trained(batch.rows(torch.tensor(order))) == [kept[i] for i in order]


def test_nothing_to_drop() -> None:
    batch = mixed().batch
    assert torch.equal(Duplicates().apply(batch).loss_mask_BT, batch.loss_mask_BT)


def test_a_rank_without_rows() -> None:
    empty = batch_of([(0, (1,))]).rows(slice(0, 0))
    assert Duplicates().keep_groups(empty).shape == (0,)
    assert Duplicates().apply(empty).num_sequences == 0
