"""The invariance grid: whatever parts are combined, how the rows are cut and spread over ranks does not change the gradient.

A covering array in which every allowed pair of parts (and of part and shape, and of part and number of ranks) meets at least
once. A share of the whole product runs with `--run-slow`.
"""

from __future__ import annotations

import random
from itertools import groupby, product
from operator import itemgetter

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.trainer.compatibility import check_compatible
from support.covering import Row, allowed_pairs, covering_array
from support.grid import SHAPES, choices, gradients, parts_of, run_rows
from support.product import differences, token_gradients
from support.world import run_ranks

ERASING = {"GSPO", "LUSPO", "GMPO"}
ONE_SIGN = {"GSPOToken"}
SEQUENCE_CREDIT = {"Uniform", "SequenceMean"}
ADDITIVE = {"KTAE", "GTPO"}
PER_TOKEN = {"OptimalTokenBaseline"}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def takes_responses(name: str) -> bool:
    return bool(choices()["credit"][name].per_response())


def expected(row: Row) -> bool:
    """The compatibility matrix, written out a second time: the table of docs/compatibility.md by names."""
    loss, credit, weighting, estimator = (row.get(factor) for factor in ("loss", "credit", "weighting", "estimator"))
    if loss in ERASING:
        if credit is not None and credit not in SEQUENCE_CREDIT:
            return False
        if weighting not in (None, "Constant") or estimator in PER_TOKEN:
            return False
    if loss in ONE_SIGN and (credit in ADDITIVE or estimator in PER_TOKEN):
        return False
    return not (estimator in PER_TOKEN and credit is not None and takes_responses(credit))


def factors() -> dict[str, list[str]]:
    return {factor: sorted(options) for factor, options in choices().items()} | {
        "shape": list(SHAPES), "ranks": ["1", "2", "4"],
    }  # fmt: skip


def test_the_config_check_refuses_exactly_what_the_matrix_does() -> None:
    names = choices()
    seen = {True: 0, False: 0}
    four = (names["loss"], names["credit"], names["weighting"], names["estimator"])
    for loss, credit, weighting, estimator in product(*four):
        row = {"loss": loss, "credit": credit, "weighting": weighting, "estimator": estimator}
        wanted = expected(row)
        seen[wanted] += 1
        if wanted:
            check_compatible(parts_of(row))
        else:
            with pytest.raises(ConfigError, match=r"wanted .* got .*[.] Use "):
                check_compatible(parts_of(row))
    assert min(seen.values()) > 100, seen


def test_every_allowed_pair_is_in_the_array() -> None:
    rows = covering_array(factors(), expected)
    met = {(a, row[a], b, row[b]) for row in rows for a, b in product(row, row) if a != b}
    assert allowed_pairs(factors(), expected) <= met
    assert all(expected(row) for row in rows)


def compare(rows: list[Row], dtype: torch.dtype) -> None:
    """Each row in its shape and on its ranks against the same parts in one micro-batch on one rank."""
    for size in ("1", "2", "4"):
        mine = [row for row in rows if row["ranks"] == size]
        given = [(row, row["shape"]) for row in mine]
        got = run_rows(given, dtype) if size == "1" else run_ranks(int(size), run_rows, given, dtype)[0]
        for row, gradient in zip(mine, got, strict=True):
            wanted = gradients(row, SHAPES["whole"], dtype=dtype)
            assert bool(torch.isfinite(wanted).all()), row
            for update in range(len(wanted)):
                scale = float(wanted[update].abs().max())
                error = float((gradient[update] - wanted[update]).abs().max())
                assert error <= TOLERANCE[dtype] * max(scale, 1e-6), f"update {update}: {error:.3g} of {scale:.3g}: {row}"


@pytest.mark.timeout(1200)
def test_no_cut_changes_a_gradient() -> None:
    rows = covering_array(factors(), expected)
    compare(rows, torch.float64)


def test_in_float32() -> None:
    """The published method and its closest rivals; float64 shows the rest."""
    common = {"estimator": "GroupStandardised", "weighting": "Constant", "reduction": "TokenMean", "correction": "NoCorrection"}
    compare(
        [
            common | {"credit": credit, "loss": loss, "penalty": "none", "shape": shape, "ranks": ranks}
            for credit, loss in (("Delta", "ClippedSurrogate"), ("Uniform", "GSPO"), ("Delta", "SAPO"))
            for shape, ranks in (("many, some empty", "1"), ("more padding", "2"), ("small head chunks", "4"))
        ],
        torch.float32,
    )


@pytest.mark.slow
@pytest.mark.timeout(20000)
def test_the_product(pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Combinations of estimator, assigner, weighting, loss and reduction, down to the gradient of every token.

    Shapes and numbers of ranks take turns, so that each meets each pair of parts many times. In each turn a share of the pairs
    of estimator and assigner is drawn, with all that goes with them: `--grid-share=1` is the whole product, `--grid-seed`
    draws others.
    """
    share, seed = float(pytestconfig.getoption("--grid-share")), int(pytestconfig.getoption("--grid-seed"))
    five = ("estimator", "credit", "weighting", "loss", "reduction")
    every = [dict(zip(five, values, strict=True)) for values in product(*(sorted(choices()[factor]) for factor in five))]
    rows = [row for row in every if expected(row)]
    contexts = list(product(sorted(SHAPES), (1, 2, 4)))
    failed: list[str] = []
    tried, draw = 0, random.Random(seed)
    for place, (shape, size) in enumerate(contexts):
        turn = rows[place :: len(contexts)]
        pairs = [list(pair) for _, pair in groupby(turn, key=itemgetter("estimator", "credit"))]
        drawn = pairs if share >= 1 else draw.sample(pairs, max(1, round(share * len(pairs))))
        mine = [row for pair in drawn for row in pair]
        wanted = list(token_gradients(mine, "whole"))
        assert all(bool(torch.isfinite(want).all()) for want in wanted)
        found = differences(mine, shape, wanted) if size == 1 else run_ranks(size, differences, mine, shape, wanted)[0]
        failed += [
            f"{error:.3g}, {shape}, {size} ranks: {row}"
            for row, error in zip(mine, found, strict=True)
            if error > TOLERANCE[torch.float64]
        ]
        tried += len(mine)
        with capsys.disabled():
            print(
                f"{shape}, {size} ranks: {len(mine)} of {len(turn)} combinations, largest difference {max(found):.2g}",
                flush=True,
            )
    with capsys.disabled():
        print(f"tried {tried} of {len(rows)} combinations, seed {seed}; {len(failed)} differ")
    assert tried and not failed, f"{len(failed)} of {tried} combinations differ; the first: " + "; ".join(failed[:5])
