from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from delta_lightning.functional.sides import Sides, group_units, row_blocks, side_mean, side_std
from delta_lightning.testing.views import ThreadRank, run_ranks

A = torch.tensor([1.0, -2.0, 0.0, 0.5, -0.5, 3.0, 1.0], dtype=torch.float64)
UNITS = torch.tensor([0, 0, 1, 2, 2, 2, 1])
VALUES = torch.tensor([3.0, 1.0, 7.0, 2.0, 5.0, 4.0, 6.0], dtype=torch.float64)


def two() -> Sides:
    return Sides(A, UNITS, 3)


def test_members_and_weights() -> None:
    sides = two()
    assert sides.members_2N.tolist() == [[1, 0, 0, 1, 0, 1, 1], [0, 1, 0, 0, 1, 0, 0]]
    assert sides.weights_2N.tolist() == [[1, 0, 0, 0.5, 0, 3, 1], [0, 2, 0, 0, 0.5, 0, 0]]
    assert sides.two_sided_U().tolist() == [True, False, True]
    assert Sides(A).two_sided_U().tolist() == [True]


def test_statistics_of_each_side_and_unit() -> None:
    """An empty side has mean 0 and the floor of the deviation; tokens without a side count nowhere."""
    assert side_mean(VALUES, two()).tolist() == [[3, 6, 3], [1, 0, 5]]
    torch.testing.assert_close(side_std(VALUES, two()), torch.tensor([[1e-4, 1e-4, 1], [1e-4, 1e-4, 1e-4]]).double())
    everything = side_std(VALUES, Sides(A))[:, 0]
    np.testing.assert_allclose(everything, [np.std([3, 2, 4, 6]), np.std([1, 5])], rtol=1e-12)


def test_own_values() -> None:
    values_2U = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert two().own(values_2U).tolist() == [1, 4, 2, 3, 6, 3, 2]


def test_centred_moments_survive_an_offset() -> None:
    assert float(side_std(VALUES + 1e8, Sides(A))[1, 0]) == pytest.approx(2, rel=1e-7)


def test_sums_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = two().sums(VALUES[None])
    monkeypatch.setattr("delta_lightning.functional.sides.BLOCK_ELEMENTS", 6)
    assert len(row_blocks(7, 3)) == 4
    torch.testing.assert_close(two().sums(VALUES[None]), wanted)


@pytest.mark.parametrize("split", [[7], [3, 4], [0, 7, 0], [2, 0, 5]])
def test_groups_are_numbered_over_all_ranks(split: list[int]) -> None:
    """Ids with holes; a group may be on several ranks; a rank may hold none."""
    ids = torch.tensor([5, 5, 900, 17, 17, 17, 900])
    ends = np.cumsum([0, *split])

    def work(rank: int, ranks: ThreadRank) -> tuple[Tensor, int]:
        return group_units(ids[ends[rank] : ends[rank + 1]], all_sum=ranks.all_sum)

    results = run_ranks(len(split), work)
    assert torch.cat([units for units, _ in results]).tolist() == [0, 0, 2, 1, 1, 1, 2]
    assert {count for _, count in results} == {3}


def test_no_tokens_have_one_unit() -> None:
    units, count = group_units(torch.zeros(0, dtype=torch.int64))
    assert units.shape == (0,) and count == 1


def test_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="advantages_N"):
        Sides(A[None])
    with pytest.raises(ValueError, match="one shape"):
        Sides(A, UNITS[:3], 3)
