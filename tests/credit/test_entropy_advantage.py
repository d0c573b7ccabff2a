from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.credit import EntropyAdvantage, Uniform
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import PROMPT, degenerate, make_batch, mixed, scored
from delta_lightning.types import Need
from support.reference_entropy_advantage import token_advantage


def scale_of(advantage: float, entropy: float, part: EntropyAdvantage) -> float:
    """The scale of a single token."""
    world = scored(make_batch([1], rewards=[1], groups=[0]), [0.0]).with_advantages(
        torch.tensor([advantage], dtype=torch.float64)
    )
    entropies_BT = torch.full_like(world.entropies_BT, entropy)
    return float(part.credit(View(replace(world, entropies_BT=entropies_BT))).scale_BT[0, PROMPT])


@pytest.mark.parametrize("part", [EntropyAdvantage(alpha=alpha, kappa=1.5) for alpha in (0.1, 5.0, 0.0)])
def test_obeys_the_laws(part: EntropyAdvantage) -> None:
    check_credit(part)


@pytest.mark.parametrize("part", [EntropyAdvantage(), EntropyAdvantage(alpha=0.1, kappa=4.0), EntropyAdvantage(alpha=3.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_equals_the_reference(part: EntropyAdvantage, dtype: torch.dtype, tolerance: float) -> None:
    world = mixed(dtype)
    got = part.credit(View(world))
    assert got.shift_BT is None and got.scale_BT.dtype == dtype
    for row, column in world.batch.loss_mask_BT.nonzero().tolist():
        advantage = float(world.advantages[row])
        wanted = token_advantage(advantage, float(world.entropies_BT[row, column]), alpha=part.alpha, kappa=part.kappa)
        scale = float(got.scale_BT[row, column])
        assert scale * advantage == pytest.approx(wanted if advantage else 0, abs=tolerance)
        assert advantage or scale == 1


def test_golden_values() -> None:
    """alpha H = 0.4 H against |A| / 2: below, at and above the bound, on both sides."""
    part = EntropyAdvantage()
    wanted = {
        (1, 0.5): 1.2,
        (1, 1.25): 1.5,
        (1, 5): 1.5,
        (-1, 0.5): 0.8,
        (-1, 5): 0.5,
        (0.2, 0.1): 1.2,
        (-0.2, 1): 0.5,
        (2, 0): 1,
    }
    for (advantage, entropy), scale in wanted.items():
        assert scale_of(advantage, entropy, part) == pytest.approx(scale, abs=1e-14), (advantage, entropy)


@given(st.floats(-1e30, 1e30), st.floats(-1e-5, 15), st.floats(0, 100), st.floats(1.001, 1e3))
def test_no_sign_turns_and_the_advantage_never_falls(advantage: float, entropy: float, alpha: float, kappa: float) -> None:
    scale = scale_of(advantage, entropy, EntropyAdvantage(alpha=alpha, kappa=kappa))
    assert 1 - 1 / kappa - 1e-12 <= scale <= 1 + 1 / kappa + 1e-12
    assert scale > 0 and (scale - 1) * advantage >= 0
    if advantage == 0:
        assert scale == 1


def test_tiny_and_zero_advantages() -> None:
    assert scale_of(0.0, 1.0, EntropyAdvantage()) == 1
    assert scale_of(1e-300, 1.0, EntropyAdvantage()) == 1.5
    assert scale_of(-1e-300, 1.0, EntropyAdvantage()) == 0.5


def test_takes_advantages_per_token() -> None:
    world = scored(make_batch([3], rewards=[1], groups=[0], pad=0), [0.0])
    wide = replace(
        world.with_advantages(torch.tensor([[0, 0, 1.0, 0, -1.0]])), entropies_BT=torch.ones_like(world.entropies_BT)
    )
    got = EntropyAdvantage().credit(View(wide)).scale_BT[0, PROMPT:]
    assert got.tolist() == pytest.approx([1.4, 1.0, 0.6])


def test_degenerate_batches() -> None:
    for name in ("no advantage", "all tokens masked", "no rows"):
        view = View(degenerate()[name])
        assert torch.equal(EntropyAdvantage().credit(view).scale_BT.bool(), view.batch.loss_mask_BT), name
        assert torch.equal(EntropyAdvantage().credit(view).scale_BT, view.batch.loss_mask_BT.double()), name


def test_answers() -> None:
    part, nothing = EntropyAdvantage(), EntropyAdvantage(alpha=0)
    assert part.needs() == {Need.ENTROPY} and part.token_level()
    assert nothing.needs() == frozenset() and not nothing.token_level()
    assert not part.additive() and not part.per_response() and not part.cut_dependent()
    view = View(mixed())
    assert torch.equal(nothing.credit(view).scale_BT, Uniform().credit(view).scale_BT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": -0.1}, "alpha: wanted at least 0"),
        ({"kappa": 1.0}, "kappa: wanted above 1"),
        ({"kappa": float("nan")}, "kappa"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"credit.EntropyAdvantage.{message}"):
        EntropyAdvantage(**fields)
