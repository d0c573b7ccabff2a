"""Ranks, strategies, models and how they are cut: five optimiser steps end at the same parameters, with the same losses.

`support.training_grid` says what is compared and derives the tolerance. Every pair of values of any two factors stands in a
cell of the covering array; the slow test runs the whole grid, with a budget only where `with_budget` says.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest

from support.covering import Row, allowed_pairs, covering_array
from support.planted_faults import FAULTS
from support.training_grid import (
    EXACT,
    FACTORS,
    LR,
    UPDATES,
    Trained,
    allowed,
    difference,
    name_of,
    plain,
    run_cells,
    trained,
)
from support.world import run_ranks

pytestmark = pytest.mark.timeout(900)  # many runs in one world
COVERING = covering_array(FACTORS, allowed)
EXACTLY = FACTORS | {"dtype": ("float64",)}  # the stricter of both, for the whole grid


def with_budget(row: Row) -> bool:
    """A cell of the whole grid that has a budget has the plainest model, which does not depend on how rows are cut.

    So a budget is crossed with ranks, strategy, shards, rows and sums. With the rest it stands in pairs, in the covering array.
    """
    return all(row[name] == EXACTLY[name][0] for name in ("family", "head", "activations", "trained"))


CELLS = (dict(zip(EXACTLY, values, strict=True)) for values in product(*EXACTLY.values()))
WHOLE = [row for row in CELLS if allowed(row) and (row["budget"] == "no budget" or with_budget(row))]


@cache
def covered() -> dict[str, list[Trained]]:
    """What every cell of the covering array ended with."""
    return run_cells(COVERING)


def agree(row: Row, found: dict[str, list[Trained]]) -> None:
    """The cell ended, on every rank, where the plain one did; and that one went somewhere."""
    [want] = found[name_of(plain(row))]
    assert len(want.losses) == UPDATES
    moved = {name: float((want.values[name] - value).abs().max()) for name, value in want.begun.items()}
    room = UPDATES * LR * 2 * EXACT[row["dtype"]]
    assert min(moved.values()) > 10 * room, f"{min(moved, key=moved.__getitem__)} hardly moved: nothing is shown"
    for got in found[name_of(row)]:
        assert got.sharded == (row["strategy"] == "fsdp2")
        assert got.micro == (2 if row["budget"] == "no budget" else 8 // int(row["ranks"]))
        assert difference(got, want, row["dtype"]) < 1


def test_every_pair_stands_in_a_cell() -> None:
    assert {pair for row in COVERING for pair in allowed_pairs({factor: [row[factor]] for factor in row}, allowed)} == (
        allowed_pairs(FACTORS, allowed)
    )
    assert len(COVERING) < len(WHOLE) / 8


@pytest.mark.parametrize("row", COVERING, ids=name_of)
def test_ends_where_one_device_does(row: Row) -> None:
    agree(row, covered())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ranks", FACTORS["ranks"])
def test_the_whole_grid(ranks: str) -> None:
    """In float64."""
    rows = [row for row in WHOLE if row["ranks"] == ranks]
    found = run_cells(rows)
    assert len(found) >= len(rows)
    for row in rows:
        agree(row, found)


# The grid can fail -------------------------------------------------------------------------------------------------------


def cell_of(fault: str) -> Row:
    """The cell that shows a fault: what it needs, and else the plain one in float64."""
    model = {factor: values[0] for factor, values in FACTORS.items()}
    return plain(model) | FAULTS[fault].cell


def with_faults(faults: list[str]) -> dict[str, Trained]:
    return {fault: trained(cell_of(fault), fault) for fault in faults}


@cache
def faulty() -> dict[str, Trained]:
    by_ranks: dict[str, list[str]] = {}
    for fault in FAULTS:
        by_ranks.setdefault(cell_of(fault)["ranks"], []).append(fault)
    return {
        fault: ended
        for ranks, faults in by_ranks.items()
        for fault, ended in run_ranks(int(ranks), with_faults, faults)[0].items()
    }


@cache
def unharmed() -> dict[str, list[Trained]]:
    return covered() | run_cells([row for row in map(plain, map(cell_of, FAULTS)) if name_of(row) not in covered()])


def test_every_factor_has_a_planted_fault() -> None:
    assert {fault.factor for fault in FAULTS.values()} == set(FACTORS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault: str) -> None:
    row = cell_of(fault)
    [want] = unharmed()[name_of(plain(row))]
    assert difference(faulty()[fault], want, row["dtype"]) > 10
