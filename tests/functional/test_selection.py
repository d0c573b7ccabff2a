from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.functional.selection import share_count, smallest_bound, token_keys, top_bound, top_mask, within_bound
from support import reference_weightings as reference

values = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 2.0]), min_size=1, max_size=30)


@given(values=values, share=st.sampled_from([0.01, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0]))
def test_top_share_with_ties(values: list[float], share: float) -> None:
    value_N = torch.tensor(values, dtype=torch.float64)
    wanted = reference.top_share(values, share)
    count = share_count(share, len(values))
    assert count == sum(wanted) >= 1
    assert top_mask(value_N, count).tolist() == wanted
    keys_N = torch.arange(len(values)) * 3
    assert within_bound(value_N, keys_N, top_bound(value_N, keys_N, count)).tolist() == wanted


@pytest.mark.parametrize(("share", "total", "count"), [(0.1, 30, 3), (0.2, 5, 1), (0.2, 6, 2), (1.0, 7, 7), (0.2, 0, 0)])
def test_counts_do_not_suffer_from_rounding(share: float, total: int, count: int) -> None:
    assert share_count(share, total) == count


def test_nothing_selected() -> None:
    value_N, keys_N = torch.tensor([1.0, 2.0]), torch.arange(2)
    assert not bool(top_mask(value_N, 0).any())
    assert not bool(within_bound(value_N, keys_N, top_bound(value_N, keys_N, 0)).any())
    assert not bool((value_N <= smallest_bound(value_N, 0)).any())
    assert not bool((value_N[:0] <= smallest_bound(value_N[:0], 0)).any())
    assert float(smallest_bound(torch.tensor([3.0, 1.0, 2.0]), 2)) == 2.0


def test_keys_are_the_global_order() -> None:
    keys_BT = token_keys(torch.tensor([7, 2]), 3)
    assert keys_BT.flatten().argsort().tolist() == [3, 4, 5, 0, 1, 2]
