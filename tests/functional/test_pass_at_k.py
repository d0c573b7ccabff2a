from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from delta_lightning.functional.pass_at_k import pass_at_k


def reference(n: int, c: int, k: int) -> float:
    """The paper's numerically stable script, float64."""
    return 1.0 if n - c < k else float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1, dtype=np.float64)))


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 6), (4, 1, 4), (7, 3, 2)])
def test_by_counting_all_ways_to_choose(n: int, c: int, k: int) -> None:
    ways = [any(i < c for i in chosen) for chosen in combinations(range(n), k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(ways) / len(ways), abs=1e-14)


def test_against_numpy_and_exact_integers() -> None:
    for n in (1, 2, 10, 100, 1000):
        for c in {0, 1, n // 3, n - 1, n}:
            for k in {1, n // 2 or 1, n}:
                got = pass_at_k(n, c, k)
                assert got == pytest.approx(reference(n, c, k), abs=1e-12)
                assert got == pytest.approx((comb(n, k) - comb(n - c, k)) / comb(n, k), abs=1e-12)


def test_k_of_1_is_the_share() -> None:
    assert pass_at_k(200, 37, 1) == pytest.approx(37 / 200, abs=1e-15)


@pytest.mark.parametrize(("n", "c", "k"), [(0, 0, 1), (5, 6, 1), (5, -1, 1), (5, 2, 0), (5, 2, 6)])
def test_numbers_out_of_range(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="wanted"):
        pass_at_k(n, c, k)
