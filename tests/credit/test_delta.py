from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from delta_lightning.credit import Delta, Uniform
from delta_lightning.errors import ConfigError
from delta_lightning.types import Need, TokenScores
from support import reference
from delta_lightning.testing.worlds import Scored, golden, mixed
from delta_lightning.testing.laws import CUTS
from delta_lightning.testing.views import View

GOLDEN = [1.066752, 0.889945, 1.068494, 0.889945, 1.115920, 1.139104, 1.074668, 0.991378, 0.763793]


def reference_credit(world: Scored, part: Delta) -> Tensor:
    """The coefficients by the NumPy reference, from v = (1 - exp(log p)) h written out."""
    mask_BT = world.batch.loss_mask_BT
    proxies = [
        (1 - world.logprobs_BT[row, t].exp().item()) * world.hidden_BTD[row, t].double().numpy()
        for row, t in mask_BT.nonzero().tolist()
    ]
    advantages = [float(world.advantages[row]) for row, _ in mask_BT.nonzero().tolist()]
    coefficients = reference.delta(proxies, advantages, refinements=part.refinements, low=part.low, high=part.high)
    scale_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    scale_BT[mask_BT] = torch.from_numpy(coefficients)
    return scale_BT


def test_golden_vector() -> None:
    world = golden()
    credit = Delta().credit(View(world, cuts=[slice(0, 1), slice(1, 4)]))
    torch.testing.assert_close(credit.scale_BT[world.batch.loss_mask_BT], torch.tensor(GOLDEN).double(), rtol=0, atol=1e-6)
    assert credit.shift_BT is None


@pytest.mark.parametrize("part", [Delta(), Delta(refinements=0), Delta(refinements=3, low=0.5, high=1.5), Delta(low=0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_reference(part: Delta, dtype: torch.dtype, tolerance: float) -> None:
    for seed in range(5):
        world = mixed(dtype, seed=seed)
        scale_BT = part.credit(View(world)).scale_BT
        assert scale_BT.dtype == dtype
        torch.testing.assert_close(scale_BT.double(), reference_credit(world, part), rtol=tolerance, atol=tolerance)


def test_hidden_states_in_bfloat16_are_scaled_in_float32() -> None:
    world = mixed(torch.float32)
    rounded = replace(world, hidden_BTD=world.hidden_BTD.bfloat16())
    scale_BT = Delta().credit(View(rounded)).scale_BT
    assert scale_BT.dtype == torch.float32
    wanted = reference_credit(replace(world, hidden_BTD=rounded.hidden_BTD.float()), Delta())
    torch.testing.assert_close(scale_BT.double(), wanted, rtol=1e-5, atol=1e-5)


def test_mean_over_trained_tokens_is_one_and_zero_advantages_get_the_least() -> None:
    world = mixed()
    mask_BT = world.batch.loss_mask_BT
    scale_BT = Delta().credit(View(world)).scale_BT
    assert float(scale_BT[mask_BT].mean()) == pytest.approx(1, abs=1e-12)
    idle_BT = mask_BT & (world.advantages == 0)[:, None]
    assert len(scale_BT[idle_BT].unique()) == 1
    assert float(scale_BT[idle_BT].max()) <= float(scale_BT[mask_BT].min())


class NoHidden(View):
    """A view whose scoring pass computed no hidden states."""

    def passes(self) -> Iterator[tuple[slice, TokenScores]]:
        for rows, scores in super().passes():
            yield rows, replace(scores, hidden_ND=None)


@pytest.mark.parametrize("bound", [0.3, 0.8, 1.0, 1.2])
def test_equal_bounds_are_uniform_bitwise_and_need_nothing(bound: float) -> None:
    part, view = Delta(low=bound, high=bound), NoHidden(mixed())
    assert torch.equal(part.credit(view).scale_BT, Uniform().credit(view).scale_BT)
    assert part.needs() == frozenset()
    assert not part.token_level()


@pytest.mark.parametrize("side", [-1.0, 0.0, 1.0])
def test_one_side_alone_is_uniform(side: float) -> None:
    world = mixed()
    view = View(world.with_advantages(world.advantages.abs() * side))
    assert torch.equal(Delta().credit(view).scale_BT, Uniform().credit(view).scale_BT.double())


def test_needs_hidden_states_and_is_token_level() -> None:
    assert Delta().needs() == {Need.HIDDEN}
    assert Delta().token_level()
    assert not Delta().cut_dependent()
    with pytest.raises(ValueError, match="with hidden states"):
        Delta().credit(NoHidden(mixed()))


class LateAdvantages(View):
    @property
    def advantages(self) -> Tensor | None:
        return None


def test_refuses_advantages_that_it_cannot_use() -> None:
    world = mixed()
    with pytest.raises(ConfigError, match=r"one advantage per response, \[B\], got .*\[12, 9\]"):
        Delta().credit(View(world.with_advantages(torch.zeros(world.batch.loss_mask_BT.shape))))
    with pytest.raises(ValueError, match="before credit is assigned"):
        Delta().credit(LateAdvantages(world))


def test_refuses_scores_that_do_not_fit_the_rows() -> None:
    world = mixed()
    with pytest.raises(ValueError, match="rows in order"):
        Delta().credit(View(world, cuts=[slice(6, 12), slice(0, 6)]))

    class Short(View):
        def passes(self) -> Iterator[tuple[slice, TokenScores]]:
            for rows, scores in super().passes():
                assert scores.hidden_ND is not None
                yield rows, replace(scores, hidden_ND=scores.hidden_ND[1:])

    with pytest.raises(ValueError, match="hidden states for"):
        Delta().credit(Short(world, cuts=CUTS["uneven"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"refinements": -1}, "credit.refinements"),
        ({"low": -0.1}, "credit.low"),
        ({"low": 0.0, "high": 0.0}, "credit.high"),
        ({"low": 1.3}, r"at most credit.high \(1.2\), got 1.3"),
        ({"low": float("nan")}, "credit.low"),
        ({"high": float("nan")}, "credit.high"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Delta(**fields)  # type: ignore[arg-type]


def test_defaults_are_the_published_method() -> None:
    assert Delta() == Delta(refinements=1, low=0.8, high=1.2)
