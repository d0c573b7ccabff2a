from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import OptimalTokenBaseline
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_advantage
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import Scored, make_batch, scored
from delta_lightning.types import Need
from support import reference_advantages as reference
from support.graded import advantages_of, graded, over_ranks


def world_of(p: list[list[float]], squares: list[list[float]], rewards: list[float], dtype: torch.dtype) -> Scored:
    """One group, answers as long as their lists."""
    world = scored(make_batch([len(row) for row in p], rewards=rewards, groups=[0] * len(p)), [0.0] * len(p), dtype=dtype)
    mask_BT = world.batch.loss_mask_BT

    def fill(rows: list[list[float]]) -> torch.Tensor:
        value_BT = torch.zeros(mask_BT.shape, dtype=dtype)
        value_BT[mask_BT] = torch.tensor([value for row in rows for value in row], dtype=dtype)
        return value_BT

    return replace(world, logprobs_BT=fill(p).log().nan_to_num(neginf=0), sum_p_squared_BT=fill(squares))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-6)])
def test_golden(dtype: torch.dtype, tolerance: float) -> None:
    world = world_of([[0.5, 0.9, 0.2], [0.8, 0.6, 0.7]], [[0.4, 0.85, 0.3], [0.7, 0.5, 0.6]], [1, 0], dtype)
    got = advantages_of(OptimalTokenBaseline(), world)
    assert got.dtype == dtype
    baselines = [0.8, 0.529412, 0.692308]
    wanted = [*[1 - b for b in baselines], *[-b for b in baselines]]
    assert got[world.batch.loss_mask_BT].tolist() == pytest.approx(wanted, abs=tolerance)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["zero", "own"]))
def test_equals_the_reference_on_any_number_of_ranks(seed: int, tail: str) -> None:
    g = graded(seed)
    part = OptimalTokenBaseline(eps=0, tail=tail)  # type: ignore[arg-type]
    wanted = reference.token_baseline(g.rewards, g.groups, g.valid, g.mask, g.p, g.sum_p_squared, tail=tail)
    np.testing.assert_allclose(advantages_of(part, g.world).numpy(), wanted, atol=1e-11)
    np.testing.assert_allclose(over_ranks(part, g.world, 3).numpy(), wanted, atol=1e-11)


def test_the_tail_of_the_longest_answer() -> None:
    world = world_of([[0.5, 0.5, 0.5], [0.5]], [[0.4, 0.4, 0.4], [0.4]], [1, 0], torch.float64)
    rows = world.batch.loss_mask_BT[0]
    assert advantages_of(OptimalTokenBaseline(), world)[0, rows].tolist() == pytest.approx([0.5, 1, 1])
    assert advantages_of(OptimalTokenBaseline(tail="own"), world)[0, rows].tolist() == pytest.approx([0.5, 0, 0])


def test_certain_tokens_fall_back_to_the_mean() -> None:
    """p = 1 has no gradient: W is 0 at the first token of both."""
    for eps in (0.0, 1e-8):
        world = world_of([[1.0, 0.5], [1.0, 0.5]], [[1.0, 0.4], [1.0, 0.4]], [1, 0], torch.float64)
        got = advantages_of(OptimalTokenBaseline(eps=eps), world)[world.batch.loss_mask_BT]
        assert got.tolist() == pytest.approx([0.5, 0.5, -0.5, -0.5])


def test_weights_are_never_negative() -> None:
    """Rounded inputs may have a sum of squares below p squared."""
    world = world_of([[0.9], [0.5]], [[0.81 - 1e-4], [0.5]], [1, 0], torch.float64)
    got = advantages_of(OptimalTokenBaseline(eps=0), world)[world.batch.loss_mask_BT]
    baseline = 0.01 / (0.01 + 0.5)
    assert got.tolist() == pytest.approx([1 - baseline, -baseline])


@pytest.mark.parametrize("tail", ["zero", "own"])
def test_ties_and_single_verdicts_give_exactly_zero(tail: str) -> None:
    part = OptimalTokenBaseline(tail=tail)  # type: ignore[arg-type]
    tied = world_of([[0.5, 0.3], [0.4], [0.2]], [[0.4, 0.4], [0.3], [0.2]], [0.9, 0.9, 0.9], torch.float32)
    assert not bool(advantages_of(part, tied).any())
    single = world_of([[0.5, 0.3]], [[0.4, 0.4]], [1], torch.float64)
    assert not bool(advantages_of(part, single).any())
    check_advantage(part)


def test_extreme_probabilities() -> None:
    tiny = float(torch.tensor(-50.0, dtype=torch.float64).exp())
    world = world_of([[tiny, 1.0], [1.0, tiny]], [[1.0, 1.0], [1.0, 1.0]], [1, 0], torch.float64)
    assert bool(torch.isfinite(advantages_of(OptimalTokenBaseline(), world)).all())


def test_what_it_asks_for() -> None:
    part = OptimalTokenBaseline()
    assert part.needs() == {Need.SCORES, Need.SUM_P_SQUARED}
    assert part.per_token() and part.min_completions() == 2
    for fields in ({"eps": -1.0}, {"tail": "none"}):
        with pytest.raises(ConfigError, match=rf"advantage\.{next(iter(fields))}"):
            OptimalTokenBaseline(**fields)


def test_a_view_without_sums_of_squares_is_an_error() -> None:
    world = graded(1).world

    class Blind(View):
        def passes(self):  # type: ignore[no-untyped-def]
            for rows, scores in super().passes():
                yield rows, replace(scores, sum_p_squared_BT=None)

    with pytest.raises(ValueError, match="sum_p_squared_BT"):
        OptimalTokenBaseline().advantages(Blind(world))
