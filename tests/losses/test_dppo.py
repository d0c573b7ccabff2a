from __future__ import annotations

import math
from functools import partial
from typing import Literal

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.functional.policy_token import binary_kl, binary_tv
from delta_lightning.losses import CISPO, DPPO
from delta_lightning.testing.laws import at_log_ratio, check_loss
from delta_lightning.testing.worlds import make_batch, scored
from delta_lightning.types import Experience, TokenScores
from support import reference_losses
from support.loss_worlds import at_ratios, check_against, values_and_slopes

Kind = Literal["tv", "kl"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["tv", "kl"])
@pytest.mark.parametrize(("low", "high", "cap"), [(0.02, 0.05, 20.0), (0.3, 0.01, 1.5)])
def test_equals_the_reference(kind: Kind, low: float, high: float, cap: float, dtype: torch.dtype) -> None:
    part = DPPO(divergence=kind, threshold_low=low, threshold_high=high, ratio_cap=cap)
    check_against(part, partial(reference_losses.dppo, kind=kind, low=low, high=high, cap=cap), dtype=dtype)


@pytest.mark.parametrize(("kind", "threshold"), [("tv", 0.15), ("kl", 0.05)])
def test_thresholds_default_by_divergence(kind: Kind, threshold: float) -> None:
    check_against(DPPO(divergence=kind), partial(reference_losses.dppo, kind=kind, low=threshold, high=threshold))


def test_obeys_the_laws_with_kl() -> None:
    check_loss(DPPO(divergence="kl", threshold_low=0.01, threshold_high=0.02))


def moved(old: float, new: float, *, advantage: float) -> tuple[Experience, TokenScores, torch.Tensor]:
    """One token that went from one probability to another."""
    world = scored(make_batch([1], rewards=[1.0], groups=[0]), [advantage])
    world.logprobs_BT[world.batch.loss_mask_BT] = math.log(old)
    return at_log_ratio(world, math.log(new / old))


@pytest.mark.parametrize("kind", ["tv", "kl"])
@pytest.mark.parametrize(
    ("old", "new", "advantage", "stays"),
    [
        (0.5, 0.9, 1.0, False),  # further up than allowed
        (0.5, 0.52, 1.0, True),  # inside
        (0.5, 0.1, 1.0, True),  # far below, but the advantage brings it back
        (0.5, 0.1, -1.0, False),
        (0.5, 0.9, -1.0, True),
        (0.001, 0.01, 1.0, True),  # ten times as probable: a ratio clip would stop it
    ],
)
def test_stops_only_what_moves_away(kind: Kind, old: float, new: float, advantage: float, stays: bool) -> None:
    experience, scores, leaf = moved(old, new, advantage=advantage)
    _, slope_N = values_and_slopes(DPPO(divergence=kind), experience, scores, leaf)
    assert float(slope_N) == pytest.approx(-advantage * min(new / old, 20) if stays else 0)
    values = DPPO(divergence=kind).metrics(experience, scores)
    shares = {side: float(values[f"clip_{side}_share"].sum()) for side in ("upper", "lower")}
    assert shares == {"upper": float(not stays and advantage > 0), "lower": float(not stays and advantage < 0)}


def test_divergences_at_their_ends() -> None:
    ones, halves = torch.zeros(3), torch.full((3,), math.log(0.5))
    for function in (binary_tv, binary_kl):
        assert function(ones, ones).tolist() == [0, 0, 0]
    assert binary_tv(halves, ones).tolist() == pytest.approx([0.5] * 3)
    # KL to a policy that is sure would be infinite; the floor on 1 - p bounds it, far above every threshold.
    assert binary_kl(halves, ones).tolist() == pytest.approx([0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-8)] * 3, rel=1e-4)
    assert bool(torch.isfinite(binary_kl(torch.tensor([-50.0, 0.0]), torch.tensor([0.0, -50.0]))).all())


def test_without_a_region_it_is_cispo() -> None:
    world = at_ratios(advantage=-0.7, credit=[1, 2, 3, 4, 5])
    wide = DPPO(threshold_low=2.0, threshold_high=2.0, ratio_cap=1.2)
    for got, wanted in zip(values_and_slopes(wide, *world), values_and_slopes(CISPO(ratio_cap=1.2), *world), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    "fields", [{"threshold_low": 0.0}, {"threshold_high": -1.0}, {"ratio_cap": 0.5}, {"threshold_low": float("nan")}]
)
def test_refuses_fields_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"loss.{next(iter(fields))}"):
        DPPO(**fields)  # type: ignore[arg-type]


def test_refuses_an_unknown_divergence() -> None:
    with pytest.raises(ConfigError, match="tv or kl"):
        DPPO(divergence="js")  # type: ignore[arg-type]
