"""The measures of benchmarks/proxies by hand."""

from __future__ import annotations

import pytest
import torch
from benchmarks.proxies.compare import Tokens, agreement, coefficient_agreement, kendall, pearson, summarised, top_shared

A = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)


def test_kendall_with_and_without_ties() -> None:
    assert kendall(A, torch.tensor([1.0, 3.0, 2.0, 4.0])) == pytest.approx(4 / 6)  # 5 pairs agree, 1 does not
    assert kendall(A, torch.tensor([1.0, 1.0, 2.0, 3.0])) == pytest.approx(5 / (6 * 5) ** 0.5)
    assert kendall(A, torch.ones(4)) is None


def test_kendall_over_blocks() -> None:
    draws = torch.randn(2, 1300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signs = [torch.sign(x[:, None] - x[None]) for x in draws]
    assert kendall(*draws) == pytest.approx(float((signs[0] * signs[1]).sum()) / (1300 * 1299))


def test_top_shared() -> None:
    values = torch.arange(10.0)
    assert top_shared(values, values) == 1
    assert top_shared(values, -values) == 0
    assert top_shared(values, values.roll(1)) == 0.5  # {9, 8} by the first; 8 and 7 stand where the second is largest


def test_pearson() -> None:
    assert pearson(A, 3 * A - 1) == pytest.approx(1)
    assert pearson(A, torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)) == pytest.approx(0)
    assert pearson(A, torch.ones(4, dtype=torch.float64)) is None
    assert pearson(A[:1], A[:1]) is None


def test_within_sides() -> None:
    tokens = Tokens(positive_N=torch.tensor([True, True, False, False]), unsure_N=torch.tensor([True, True, True, False]))
    other = torch.tensor([-2.0, -1.0, 8.0, 7.0], dtype=torch.float64)
    found = agreement(A, other, tokens)
    assert (found["spearman A>0"], found["spearman A<0"]) == pytest.approx((1, -1))
    assert found["spearman A<0, p<0.9"] is None
    assert found["sign"] == 0.5
    assert coefficient_agreement(A, A + 0.5, tokens)["coefficient distance"] == pytest.approx(0.5)


def test_summarised() -> None:
    assert summarised([{"x": 1.0, "y": None}, {"x": 3.0, "y": 2.0}]) == {"x": {"mean": 2, "min": 1, "max": 3}, "y": None}
