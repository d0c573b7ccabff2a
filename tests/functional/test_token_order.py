from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.functional.token_order import order_within, permutation_within, significant, top_share

Pairs = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3)), max_size=30)


def test_order_within_units_is_stable() -> None:
    values_N, units_N = torch.tensor([3.0, 1, 2, 1, 1]), torch.tensor([1, 0, 1, 0, 1])
    assert order_within(values_N, units_N).tolist() == [1, 3, 4, 2, 0]


@given(pairs=Pairs, share=st.floats(0.01, 1))
@settings(max_examples=200, deadline=None)
def test_top_share_equals_sorted_lists(pairs: list[tuple[int, int]], share: float) -> None:
    values, units = [float(value) for value, _ in pairs], [unit for _, unit in pairs]
    got = top_share(torch.tensor(values), torch.tensor(units, dtype=torch.int64), share).tolist()
    wanted = [False] * len(pairs)
    for unit in set(units):
        own = [i for i in range(len(pairs)) if units[i] == unit]
        for i in sorted(own, key=lambda i: -values[i])[: math.ceil(share * len(own) - 1e-9)]:
            wanted[i] = True
    assert got == wanted


def test_top_share_counts_are_exact() -> None:
    """0.1 * 30 is 3.0000000000000004 in binary."""
    assert int(top_share(torch.arange(30.0), torch.zeros(30).long(), 0.1).sum()) == 3
    assert int(top_share(torch.arange(31.0), torch.zeros(31).long(), 0.1).sum()) == 4
    assert int(top_share(torch.zeros(7), torch.arange(7), 0.01).sum()) == 7, "at least one of each unit"


@given(pairs=Pairs, seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_permutation_stays_within_units(pairs: list[tuple[int, int]], seed: int) -> None:
    units_N = torch.tensor([unit for _, unit in pairs], dtype=torch.int64)
    draws_N = torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    index_N = permutation_within(draws_N, units_N)
    assert sorted(index_N.tolist()) == list(range(len(pairs)))
    assert torch.equal(units_N[index_N], units_N)


def test_permutations_are_equally_likely() -> None:
    """Six orders of three tokens, 6000 draws: each within four standard deviations of 1000."""
    generator, seen = torch.Generator().manual_seed(0), Counter[tuple[int, ...]]()
    for _ in range(6000):
        draws_N = torch.rand(5, generator=generator, dtype=torch.float64)
        seen[tuple(permutation_within(draws_N, torch.tensor([1, 0, 1, 0, 1]))[[0, 2, 4]].tolist())] += 1
    assert len(seen) == 6
    assert all(abs(count - 1000) < 4 * math.sqrt(6000 / 6 * 5 / 6) for count in seen.values())


@pytest.mark.parametrize(("dtype", "step"), [(torch.float32, 2.0**-16), (torch.float64, 2.0**-36)])
def test_significant_joins_what_rounding_parted(dtype: torch.dtype, step: float) -> None:
    values = torch.tensor([1.0, 1 + step / 8, 1 - step / 8, 1 + 4 * step, 0.0, 3e-7, -2.5], dtype=dtype)
    rounded = significant(values)
    assert rounded.dtype == torch.float64
    assert rounded[0] == rounded[1] == rounded[2] < rounded[3]
    assert rounded[4] == 0
    torch.testing.assert_close(rounded, values.double(), rtol=step, atol=0)


def test_no_tokens() -> None:
    none, no_units = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert top_share(none, no_units, 0.5).shape == permutation_within(none, no_units).shape == (0,)
