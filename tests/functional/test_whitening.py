from __future__ import annotations

import pytest
import torch

from delta_lightning.functional.whitening import count_responses, count_tokens, whiten


def alone(value: torch.Tensor) -> torch.Tensor:
    return value


def test_counts_are_of_trained_tokens_of_valid_rows() -> None:
    mask_BT = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])
    valid_B = torch.tensor([True, False, True])
    assert count_tokens(mask_BT, valid_B).tolist() == [2, 0, 0]
    assert count_responses(mask_BT, valid_B).tolist() == [1, 0, 0]


def test_by_hand() -> None:
    """1 once and 4 twice: mean 3, squares 4 + 1 + 1, variance 3 of n - 1 and 2 of n."""
    values_B, counts_B = torch.tensor([1.0, 4.0, 99.0]), torch.tensor([1, 2, 0])
    got = whiten(values_B, counts_B, all_sum=alone, lost=1, eps=0.0)
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx([-2 / 3**0.5, 1 / 3**0.5, 0])
    assert whiten(values_B, counts_B, all_sum=alone, lost=0, eps=2.0).tolist() == pytest.approx([-1, 0.5, 0])


def test_values_that_do_not_count_may_be_anything() -> None:
    values_B, counts_B = torch.tensor([1.0, -1.0, float("nan"), float("inf")]), torch.tensor([3.0, 3.0, 0.0, 0.0])
    assert whiten(values_B, counts_B, all_sum=alone, lost=0).tolist() == pytest.approx([1, -1, 0, 0])


@pytest.mark.parametrize("values", [[], [5.0], [0.1] * 3, [0.7] * 3, [1e6 / 3] * 10])
def test_nothing_to_tell_apart_is_exactly_zero(values: list[float]) -> None:
    """Three times 0.1 in float64 has a mean that is not 0.1."""
    values_B = torch.tensor(values, dtype=torch.float64)
    got = whiten(values_B, torch.ones_like(values_B), all_sum=alone, eps=0.0)
    assert torch.equal(got, torch.zeros(len(values), dtype=torch.float64))


def test_a_rank_without_rows_calls_the_same_collectives() -> None:
    calls: list[tuple[torch.Size, torch.dtype]] = []

    def counting(value: torch.Tensor) -> torch.Tensor:
        calls.append((value.shape, value.dtype))
        return value

    for rows in (0, 3):
        whiten(torch.arange(rows), torch.ones(rows), all_sum=counting)
    assert calls[:2] == calls[2:] and len(calls) == 4


def test_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"values_B \(2,\), counts_B \(3,\)"):
        whiten(torch.zeros(2), torch.zeros(3), all_sum=alone)
