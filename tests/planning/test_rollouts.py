"""Sizes of a step beside the trainer's own collation."""

from __future__ import annotations

import pytest

from delta_lightning.models import Packed, Padded
from delta_lightning.planning.rollouts import StepSizes
from delta_lightning.trainer.collate import Cut


def sizes(*, groups: int = 8, updates: int = 2, micro: int = 2, ranks: int = 2, **more: object) -> StepSizes:
    cut = Cut(num_groups=groups, updates=updates, micro=micro, **more)  # type: ignore[arg-type]
    return StepSizes.of(cut, completions=4, ranks=ranks, prompt_tokens=3, completion_tokens=7, attention="sdpa")


def test_by_hand() -> None:
    found = sizes()
    assert (found.prompts, found.sequences, found.rank_sequences, found.rank_trained) == (8, 32, 16, 112)
    assert (found.largest.rows, found.largest.columns, found.largest.trained) == (4, 10, 28)
    assert found.idle == 0


def test_packed_rows_are_one() -> None:
    found = sizes(layout=Packed()).largest
    assert (found.rows, found.columns, found.trained, found.packed) == (1, 40, 28, True)


@pytest.mark.parametrize("layout", [Padded(), Packed()])
def test_a_budget_makes_more_micro_batches(layout: object) -> None:
    found = sizes(layout=layout, budget=20)
    assert found.micro_batches == 4  # 8 rows of 10 tokens in each update of a rank, 2 at a time
    assert found.largest.rows * found.largest.columns == 20


def test_ranks_without_sequences_are_counted() -> None:
    assert sizes(groups=4, updates=4, ranks=4).idle == 12


def test_uneven_groups_count_for_the_rank_with_most() -> None:
    assert sizes(groups=6, updates=2, ranks=4).rank_sequences == 8
