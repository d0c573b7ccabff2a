from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import EntropyTopKDynamic, TokenMean
from delta_lightning.testing.laws import check_weighting
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import Scored, mixed, totals_of
from delta_lightning.types import Need
from support import reference_weightings as reference
from support.weightings import check_update, update

PARTS = [EntropyTopKDynamic(share=share, denominator=name) for share in (0.2, 0.5, 1.0) for name in ("kept", "all")]


def tied(world: Scored) -> Scored:
    """Entropies of three values only, so that the threshold lies within a tie."""
    return replace(world, entropies_BT=(world.entropies_BT * 3).floor() / 3)


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_laws_of_the_variants(part: EntropyTopKDynamic) -> None:
    check_weighting(part)
    check_update(part)


@pytest.mark.parametrize("part", PARTS, ids=repr)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_selects_the_share_exactly(part: EntropyTopKDynamic, ties: bool, dtype: torch.dtype) -> None:
    world = tied(mixed(dtype)) if ties else mixed(dtype)
    mask_BT = world.batch.loss_mask_BT
    weights_BT, left, statistics = update(part, View(world))
    assert weights_BT[mask_BT].bool().tolist() == reference.top_share(world.entropies_BT[mask_BT].tolist(), part.share)
    assert set(weights_BT.flatten().tolist()) <= {0.0, 1.0}
    assert weights_BT.dtype == dtype
    shrunk = part.denominator == "kept"
    assert torch.equal(left.batch.loss_mask_BT, weights_BT.bool() if shrunk else mask_BT)
    assert statistics is not None and float(statistics.values["kept"]) == float(weights_BT.sum())


def test_ties_do_not_depend_on_the_order_of_rows() -> None:
    world = tied(mixed())
    for part in PARTS:
        wanted, _, _ = update(part, View(world))
        order = torch.arange(11, -1, -1)
        got, _, _ = update(part, View(world.rows(order)))
        assert torch.equal(got, wanted[order])


@pytest.mark.parametrize(("dtype", "noise"), [(torch.float32, 1e-7), (torch.float64, 1e-15)])
def test_a_tie_is_not_broken_by_rounding(dtype: torch.dtype, noise: float) -> None:
    """First tokens of one prompt's answers have one context, but each micro-batch rounds their entropy in its own way."""
    world = tied(mixed(dtype))
    signs_BT = torch.randint(0, 2, world.entropies_BT.shape, generator=torch.Generator().manual_seed(0)).to(dtype) * 2 - 1
    rounded = replace(world, entropies_BT=world.entropies_BT * (1 + noise * signs_BT))
    assert not torch.equal(rounded.entropies_BT, world.entropies_BT)
    for part in PARTS:
        assert torch.equal(update(part, View(rounded))[0], update(part, View(world))[0])


def test_the_two_denominators_differ_by_the_share() -> None:
    """With a token mean the gradient is N / kept times larger where the others left the mask."""
    world = mixed()
    tokens = float(world.batch.loss_mask_BT.sum())
    sums = {}
    names: tuple[Literal["kept", "all"], ...] = ("kept", "all")
    for name in names:
        part = EntropyTopKDynamic(share=0.2, denominator=name)
        weights_BT, left, _ = update(part, View(world))
        totals = totals_of(replace(world, batch=left.batch))
        sums[name] = float((weights_BT * TokenMean().weights(left, totals)).sum())
    kept = float(-(-0.2 * tokens // 1))
    assert sums["kept"] == pytest.approx(1.0)
    assert sums["kept"] / sums["all"] == pytest.approx(tokens / kept)


def test_entropies_are_the_current_policys() -> None:
    """The statistics read the passes, not the experience: other entropies, another selection."""
    world = mixed()
    turned = replace(world, entropies_BT=(1 - world.entropies_BT) * world.batch.loss_mask_BT)
    chosen = []
    for now in (world, turned):
        statistics = EntropyTopKDynamic().statistics(world.experience(), View(now))
        assert statistics is not None and statistics.keep_BT is not None
        chosen.append(statistics.keep_BT)
    assert not bool((chosen[0] & chosen[1]).any())


def test_needs_and_refusals() -> None:
    assert EntropyTopKDynamic().needs() == {Need.MINI_BATCH, Need.ENTROPY}
    assert (EntropyTopKDynamic().share, EntropyTopKDynamic().denominator) == (0.2, "kept")
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=r"weighting\.share"):
            EntropyTopKDynamic(share=share)
    with pytest.raises(ConfigError, match=r"weighting\.denominator"):
        EntropyTopKDynamic(denominator="some")  # type: ignore[arg-type]
