from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import GDPO
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_advantage
from delta_lightning.testing.worlds import Scored, make_batch, scored
from support import reference_advantages as reference
from support.graded import advantages_of, graded, over_ranks


def world_of(components: list[list[float]], groups: list[int], names: tuple[str, ...]) -> Scored:
    batch = make_batch([1] * len(groups), rewards=[sum(row) for row in components], groups=groups)
    batch = replace(batch, components_BR=torch.tensor(components, dtype=torch.float64), component_names=names)
    return scored(replace(batch, rewards_B=batch.rewards_B.double()), [0.0] * len(groups))


def test_parts_that_a_sum_would_hide() -> None:
    """Two answers, (0, 1) and (0, 2) against (0, 0): after GRPO of the sums both groups look the same, here they do not."""
    world = world_of([[0, 1], [0, 0], [1, 1], [0, 0]], [0, 0, 1, 1], ("a", "b"))
    one, _, two, _ = advantages_of(GDPO(eps=0), world).tolist()
    assert two == pytest.approx(2 * one, rel=1e-6)
    # +-1/sqrt 2 and +-2/sqrt 2: sum of squares 5 over n - 1 = 3.
    assert one == pytest.approx(0.5**0.5 / (5 / 3) ** 0.5, rel=1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["tokens", "responses"]), st.sampled_from(["unbiased", "population"]))
def test_equals_the_reference_on_any_number_of_ranks(seed: int, counted: str, std: str) -> None:
    g = graded(seed)
    part = GDPO(weights={"format": 0.3, "correct": 2.0}, counted=counted, std=std)  # type: ignore[arg-type]
    wanted = reference.decoupled(g.components, g.groups, g.valid, g.mask, weights=[2.0, 0.3], counted=counted, std=std)
    np.testing.assert_allclose(advantages_of(part, g.world).numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(over_ranks(part, g.world, 3).numpy(), wanted, atol=1e-12)


def test_null_weights_are_ones_and_weights_select() -> None:
    world = graded(7).world
    got = advantages_of(GDPO(), world)
    torch.testing.assert_close(advantages_of(GDPO(weights={"correct": 1, "format": 1}), world), got, rtol=0, atol=0)
    only = world_of([[1, 5], [0, 9]], [0, 0], ("a", "b"))
    assert advantages_of(GDPO(weights={"a": 1.0}), only)[0] > 0


def test_reads_components_and_not_the_reward() -> None:
    world = graded(8).world
    other = replace(world, batch=replace(world.batch, rewards_B=world.batch.rewards_B * 0))
    torch.testing.assert_close(advantages_of(GDPO(), other), advantages_of(GDPO(), world), rtol=0, atol=0)


def test_components_that_say_nothing_give_exactly_zero() -> None:
    world = world_of([[0.9, 0.1]] * 5, [0] * 5, ("a", "b"))
    assert advantages_of(GDPO(), world).tolist() == [0] * 5


def test_refuses_a_batch_without_the_components() -> None:
    world = graded(9).world
    bare = replace(world, batch=replace(world.batch, components_BR=world.batch.components_BR[:, :0], component_names=()))
    with pytest.raises(ConfigError, match=r"advantage\.GDPO.*components"):
        advantages_of(GDPO(), bare)
    with pytest.raises(ConfigError, match=r"correct, format.*'speed'"):
        advantages_of(GDPO(weights={"speed": 1.0}), world)


def test_laws_and_fields() -> None:
    check_advantage(GDPO(counted="tokens", weights={"reward": -0.5}))
    assert GDPO().min_completions() == 2
    wrong: list[dict[str, Any]] = [
        {"weights": {}}, {"weights": {"a": float("inf")}}, {"group_eps": -1.0}, {"counted": "all"},
    ]  # fmt: skip
    for fields in wrong:
        with pytest.raises(ConfigError, match=rf"advantage\.{next(iter(fields))}"):
            GDPO(**fields)
