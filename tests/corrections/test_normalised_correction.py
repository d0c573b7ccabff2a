from __future__ import annotations

import math

import pytest
import torch

from delta_lightning.corrections import (
    IcePop,
    MaskedImportance,
    NoCorrection,
    NormalisedCorrection,
    SequenceMaskedImportance,
    TruncatedImportance,
)
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import RolloutCorrection
from delta_lightning.testing.laws import check_correction
from delta_lightning.testing.views import ThreadRank, View, rows_of_rank, run_ranks
from delta_lightning.testing.worlds import mixed
from support.mismatch import correct, weights, world_of

INNER = [TruncatedImportance(cap=0.9), IcePop(), SequenceMaskedImportance(high=1.5)]


@pytest.mark.parametrize("over", ["tokens", "sequences"])
@pytest.mark.parametrize("inner", INNER)
def test_laws(inner: RolloutCorrection, over: str) -> None:
    check_correction(NormalisedCorrection(correction=inner, over=over))  # type: ignore[arg-type]


@pytest.mark.parametrize("inner", INNER)
def test_mean_over_what_is_left_is_one_and_proportions_stay(inner: RolloutCorrection) -> None:
    world = mixed()
    plain, got = correct(inner, world), correct(NormalisedCorrection(correction=inner), world)
    assert torch.equal(got.mask_BT, plain.mask_BT)
    assert got.weights_BT[got.mask_BT].mean().item() == pytest.approx(1, abs=1e-12)
    factors = got.weights_BT[got.mask_BT] / plain.weights_BT[got.mask_BT]
    assert (factors - factors[0]).abs().max() < 1e-12


def test_over_sequences() -> None:
    """Rows of means 0.5 and 0.25, one of them three times as long: their mean is 0.375, that of tokens 0.4375."""
    rows = [[math.log(0.5)] * 3, [math.log(0.25)]]
    got = weights(NormalisedCorrection(over="sequences"), rows)
    assert got == [pytest.approx([0.5 / 0.375] * 3, abs=1e-6), pytest.approx([0.25 / 0.375], abs=1e-6)]
    got = weights(NormalisedCorrection(), rows)
    assert got == [pytest.approx([0.5 / 0.4375] * 3, abs=1e-6), pytest.approx([0.25 / 0.4375], abs=1e-6)]


def test_mean_is_over_all_ranks_and_not_over_each() -> None:
    world, part = mixed(), NormalisedCorrection(correction=TruncatedImportance(cap=0.9))

    def work(rank: int, ranks: ThreadRank) -> tuple[float, float]:
        got = part.correct(View(world.rows(rows_of_rank(world, rank, 2)), ranks=ranks))
        return got.weights_BT.sum().item(), float(got.mask_BT.sum())

    pieces = run_ranks(2, work)
    assert sum(total for total, _ in pieces) / sum(count for _, count in pieces) == pytest.approx(1, abs=1e-12)
    assert all(abs(total / count - 1) > 1e-3 for total, count in pieces)


def test_without_weights_there_is_nothing_to_normalise() -> None:
    got = correct(NormalisedCorrection(correction=MaskedImportance(low=0.9, high=1.1)), world_of([[3.0], [-3.0]]))
    assert not bool(got.weights_BT.any()) and bool(torch.isfinite(got.weights_BT).all())


def test_ones_stay_ones_and_tiny_weights_do_not_vanish() -> None:
    world = mixed()
    ones = correct(NormalisedCorrection(correction=NoCorrection()), world)
    assert torch.equal(ones.weights_BT, world.batch.loss_mask_BT.float())
    assert weights(NormalisedCorrection(), [[-50.0], [-50.0]]) == [pytest.approx([1.0]), pytest.approx([1.0])]


def test_refuses_what_it_cannot_average_over() -> None:
    with pytest.raises(ConfigError, match=r"correction.over"):
        NormalisedCorrection(over="groups")  # type: ignore[arg-type]
    assert NormalisedCorrection().correction == TruncatedImportance()
