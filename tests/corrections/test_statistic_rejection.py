from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.corrections import StatisticRejection
from delta_lightning.errors import ConfigError
from delta_lightning.functional.corrections import divergence, row_statistic
from delta_lightning.testing.laws import check_correction
from delta_lightning.testing.worlds import Scored
from support import reference_corrections as reference
from support.mismatch import EXTREME, WORLDS, check_reference, log_ratios, weights

ALL = list(product(("k1", "k2", "k3"), ("token", "sum", "mean", "max")))
BOUNDS = {"token": 0.1, "sum": 0.3, "mean": 0.1, "max": 0.4}


def part_of(estimator: str, over: str) -> StatisticRejection:
    low = -0.2 if estimator == "k1" and over != "max" else None
    return StatisticRejection(estimator=estimator, over=over, low=low, high=BOUNDS[over])  # type: ignore[arg-type]


@pytest.mark.parametrize(("estimator", "over"), ALL)
def test_laws(estimator: str, over: str) -> None:
    check_correction(part_of(estimator, over))


@pytest.mark.parametrize(("world", "tolerance"), WORLDS)
@pytest.mark.parametrize(("estimator", "over"), ALL)
def test_equals_the_reference(world: Scored, tolerance: float, estimator: str, over: str) -> None:
    part = part_of(estimator, over)
    wanted = reference.rejected(log_ratios(world), estimator, over, part.low, part.high)
    check_reference(part, wanted, world, tolerance)
    assert {value for row in wanted for value in row} == {0.0, 1.0}


def test_golden_divergences() -> None:
    """Log-ratios of r = .5, .9, 1, 1.25, 2."""
    d = torch.tensor([[math.log(r) for r in (0.5, 0.9, 1, 1.25, 2)]], dtype=torch.float64)
    assert divergence(d, estimator="k2")[0].tolist() == pytest.approx([0.240227, 0.00555, 0, 0.024897, 0.240227], abs=1e-6)
    # k3 of the sampler's side: exp(d) - 1 - d.
    assert divergence(-d, estimator="k3")[0].tolist() == pytest.approx([0.306853, 0.005751, 0, 0.023144, 0.193147], abs=1e-6)
    assert divergence(d, estimator="k1")[0].tolist() == pytest.approx([0.693147, 0.105361, 0, -0.223144, -0.693147], abs=1e-6)


def test_statistics_of_a_row_are_over_its_mask() -> None:
    value_BT = torch.tensor([[5.0, -3.0, -1.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[False, True, True], [False, False, False]])
    wanted = {"sum": [-4, 0], "mean": [-2, 0], "max": [-1, 0]}
    assert {over: row_statistic(value_BT, mask_BT, over=over)[:, 0].tolist() for over in wanted} == wanted  # type: ignore[arg-type]


def test_geometric_rejection_of_verl() -> None:
    """A band of 0.1 % around a geometric mean ratio of 1, whatever the length."""
    part = StatisticRejection(estimator="k1", over="mean", low=-0.001, high=0.001)
    rows = [[0.0009] * 10, [0.0011] * 10, [-0.0011] * 10, [0.5, -0.5], [0.5]]
    assert [row[0] for row in weights(part, rows)] == [1, 0, 0, 1, 0]


def test_extreme_ratios() -> None:
    assert [row[0] for row in weights(StatisticRejection(), EXTREME)] == [0, 0, 0, 1, 0]
    assert weights(StatisticRejection(over="token"), EXTREME)[3:] == [[1, 1, 1], [0, 0]]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8))
def test_equal_policies_are_never_rejected_and_bounds_are_monotonous(row: list[float]) -> None:
    assert weights(StatisticRejection(high=0.0), [[0.0] * len(row)])[0] == [1] * len(row)
    narrow, wide = (weights(StatisticRejection(over="token", high=high), [row])[0] for high in (0.01, 1.0))
    assert all(one <= other for one, other in zip(narrow, wide, strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"estimator": "k4"}, "correction.estimator"),
        ({"over": "row"}, "correction.over"),
        ({"low": -0.1}, "correction.low"),
        ({"estimator": "k1", "over": "max", "low": -0.1}, "correction.low"),
        ({"estimator": "k1", "low": 0.1}, "correction.low"),
        ({"high": -0.1}, "correction.high"),
        ({"high": float("nan")}, "correction.high"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StatisticRejection(**fields)  # type: ignore[arg-type]
