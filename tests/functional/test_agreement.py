"""Ranks, correlation, effective share and cosines against loops and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.functional.agreement import (
    QUANTILES,
    average_ranks,
    cosines,
    effective_share,
    histogram,
    quantiles,
    rank_correlations,
    settled,
    spearman,
)

TIED = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


def slow_ranks(values: list[float]) -> np.ndarray:
    """Each rank is the number of smaller values plus the middle place among the equal ones."""
    return np.array([sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values])


@settings(max_examples=50, deadline=None)
@given(TIED)
def test_ranks(values: list[float]) -> None:
    assert average_ranks(torch.tensor(values)).tolist() == slow_ranks(values).tolist()


@settings(max_examples=50, deadline=None)
@given(TIED, st.randoms())
def test_spearman_with_ties(a: list[float], random: object) -> None:
    b = sorted(a, key=lambda value: random.random())  # type: ignore[attr-defined]
    got = spearman(torch.tensor(a), torch.tensor(b))
    if len(set(a)) < 2:
        assert got is None
        return
    assert got == pytest.approx(np.corrcoef(slow_ranks(a), slow_ranks(b))[0, 1], abs=1e-12)


def test_spearman_known_values() -> None:
    a = torch.tensor([1.0, 2.0, 2.0, 3.0])
    assert spearman(a, a.exp()) == 1.0 and spearman(a, -a) == -1.0
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5
    assert spearman(a, torch.tensor([1.0, 2.0, 3.0, 4.0])) == pytest.approx(4.5 / math.sqrt(4.5 * 5), abs=1e-15)
    assert spearman(a, torch.ones(4)) is None and spearman(a[:0], a[:0]) is None and spearman(a[:1], a[:1]) is None


def test_rank_correlations_are_those_of_each_pair() -> None:
    vectors = [torch.tensor(values) for values in ([1.0, 2.0, 2.0, 3.0], [4.0, 1.0, 1.0, 9.0], [5.0] * 4, [3.0, 1.0, 2.0, 0.0])]
    got = rank_correlations(vectors)
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors):
            assert got[i][j] == (None if 2 in (i, j) else pytest.approx(spearman(a, b), abs=1e-15)), (i, j)
    assert rank_correlations([torch.zeros(0)] * 2) == [[None] * 2] * 2


@pytest.mark.parametrize("value", [1.0, 1 + 2.0**-21, 0.923, 7e-9, -3.3e5])
def test_a_constant_but_for_rounding_has_no_ranks(value: float) -> None:
    """Float32's last bits; the second value lies between two points of the grid."""
    noisy = value * (1 + torch.tensor([0.0, 6e-8, -6e-8, 1.2e-7, -1.2e-7], dtype=torch.float64))
    assert rank_correlations([settled(noisy), torch.arange(5.0)]) == [[None, None], [None, 1.0]]


def test_what_rounding_parts_is_tied_and_what_differs_stays() -> None:
    values = torch.tensor([1.0, 1 + 6e-8, 1.2, 1.2 - 6e-8, 1 + 1e-5, -40.0, 0.0], dtype=torch.float64)
    assert average_ranks(settled(values)).tolist() == [3.5, 3.5, 6.5, 6.5, 5, 1, 2]
    assert float((settled(values) - values).abs().max()) < 40 * 2.0**-20


def test_effective_share() -> None:
    assert effective_share(torch.full((7,), 0.3)) == pytest.approx(1.0, abs=1e-15)
    assert effective_share(torch.tensor([2.0, 2.0, 0.0, 0.0, 0.0])) == pytest.approx(0.4, abs=1e-15)
    assert effective_share(torch.tensor([1.0, 3.0])) == pytest.approx(16 / 20, abs=1e-15)
    assert effective_share(torch.zeros(3)) is None and effective_share(torch.zeros(0)) is None


def test_cosines() -> None:
    vectors = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    got = cosines(torch.tensor(vectors @ vectors.T))
    assert [got[k][k] for k in range(4)] == [1.0, 1.0, 1.0, None]
    assert got[0][1] == pytest.approx(math.sqrt(0.5), abs=1e-15) and got[0][2] == -1.0 and got[0][3] is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40))
def test_quantiles_are_numpys(values: list[float]) -> None:
    assert quantiles(torch.tensor(values, dtype=torch.float64)) == pytest.approx(np.quantile(values, QUANTILES), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-4, 4).map(lambda k: k / 2), max_size=40))
def test_histogram_is_numpys(values: list[float]) -> None:
    edges = [-1.0, -0.5, 0.25, 1.0]
    assert histogram(torch.tensor(values, dtype=torch.float64), edges) == np.histogram(values, edges)[0].tolist()
