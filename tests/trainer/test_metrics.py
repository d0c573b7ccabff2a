"""Ratios add exactly, over updates and ranks."""

from __future__ import annotations

import math

import torch

from delta_lightning.trainer.metrics import MetricBook, Ratio
from delta_lightning.trainer.ranks import Ranks
from support.world import run_ranks


def filled(rank: int) -> MetricBook:
    book = MetricBook()
    book.add("mean", torch.tensor(3.0 + rank), torch.tensor(2))
    book.add("mean", 1.0, 1.0)
    book.maximum("max", float(rank))
    book.minimum("min", -float(rank))
    if rank == 1:
        book.add("one rank only", 5.0, 10.0)
    return book


def taken() -> dict[str, float]:
    ranks = Ranks.current()
    return filled(ranks.rank).take(ranks)


def test_totals_and_counts_are_summed_before_the_division() -> None:
    assert taken() == {"mean": 4 / 3, "max": 0.0, "min": 0.0}
    for values in run_ranks(2, taken):
        assert values == {"mean": 9 / 6, "max": 1.0, "min": -1.0, "one rank only": 0.5}


def test_a_book_is_empty_once_taken_and_ratios_of_nothing_are_left_out() -> None:
    book = filled(0)
    book.take(Ranks())
    assert book.take(Ranks()) == {}
    book.add("nothing", 0.0, 0.0)
    assert book.take(Ranks()) == {}


def test_ratio_is_a_metric_in_float64() -> None:
    ratio = Ratio()
    assert math.isnan(ratio.compute())
    ratio.update(torch.tensor(1e8), 1)
    ratio.update(torch.tensor(1.0), 0)
    assert float(ratio.compute()) == 1e8 + 1
