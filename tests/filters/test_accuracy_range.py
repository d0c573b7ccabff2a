from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.filters import AccuracyRange, ZeroVariance
from delta_lightning.testing.laws import check_filter
from delta_lightning.testing.worlds import make_batch
from delta_lightning.types import RolloutBatch

# Group 0: 1/4. 1: none right. 2: all right. 3: 3/4. 4: no verdict. 5: right, and one without verdict.
REWARDS = [1, 0, 0, 0] + [0] * 4 + [1] * 4 + [1, 1, 1, 0] + [1, 0] + [1, 1, 0]
GROUPS = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 2 + [5] * 3
VALID = [True] * 16 + [False] * 2 + [True, True, False]
BATCH = make_batch([2] * len(REWARDS), rewards=REWARDS, groups=GROUPS, valid=VALID)


def kept(part: AccuracyRange, batch: RolloutBatch = BATCH) -> list[int]:
    return [group for group, keep in enumerate(part.keep_groups(batch).tolist()) if keep]


@pytest.mark.parametrize(
    ("part", "groups"),
    [
        (AccuracyRange(), [0, 3]),
        (AccuracyRange(low=0.25), [3]),
        (AccuracyRange(low=0.2, high=0.75), [0]),
        (AccuracyRange(low=None), [0, 1, 3]),
        (AccuracyRange(high=None), [0, 2, 3, 5]),
        (AccuracyRange(low=None, high=None), [0, 1, 2, 3, 5]),
        (AccuracyRange(low=0.3, high=0.7), []),
    ],
)
def test_keeps_means_inside_the_open_range(part: AccuracyRange, groups: list[int]) -> None:
    assert kept(part) == groups
    trained_B = part.apply(BATCH).loss_mask_BT.any(1)
    assert trained_B.tolist() == [valid and group in groups for group, valid in zip(GROUPS, VALID, strict=True)]


@pytest.mark.parametrize("part", [AccuracyRange(low=0.3), AccuracyRange(low=None, high=0.6), AccuracyRange(component="reward")])
def test_laws(part: AccuracyRange) -> None:
    check_filter(part)


def test_with_rewards_of_zero_and_one_it_is_zero_variance() -> None:
    assert torch.equal(AccuracyRange().keep_groups(BATCH), ZeroVariance().keep_groups(BATCH))


def test_rounding_of_a_mean_is_not_a_difference() -> None:
    """0.7 in float32 is below 0.7: on the bound all the same."""
    batch = make_batch([1] * 3, rewards=[0.7] * 3, groups=[0] * 3)
    assert kept(AccuracyRange(high=0.7), batch) == kept(AccuracyRange(low=0.7), batch) == []


def test_shaping_makes_no_difference() -> None:
    """A group of right answers of unequal length has unequal rewards after `SoftOverlong`: `ZeroVariance` would keep it."""
    batch = replace(BATCH, rewards_B=BATCH.rewards_B - torch.linspace(0, 0.5, len(REWARDS)) * BATCH.valid_B)
    assert bool(ZeroVariance().keep_groups(batch)[2])
    assert kept(AccuracyRange(), batch) == kept(AccuracyRange()) == [0, 3]


def test_a_component_instead_of_the_reward() -> None:
    """The second of two components."""
    batch = replace(BATCH, components_BR=torch.stack([BATCH.rewards_B, 1 - BATCH.rewards_B], 1), component_names=("a", "b"))
    assert kept(AccuracyRange(low=0.3, component="b"), batch) == [0]
    assert kept(AccuracyRange(low=0.3, component="a"), batch) == [3]


def test_a_component_that_nobody_has_is_a_mistake_in_the_config() -> None:
    with pytest.raises(ConfigError, match=r"filters.component.*reward.*'correct'"):
        AccuracyRange(component="correct").keep_groups(BATCH)
    nobody = make_batch([1, 1], rewards=[0, 0], groups=[0, 0], valid=[False, False])
    assert AccuracyRange(component="correct").keep_groups(nobody).tolist() == [False]


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.5, 0.5), (float("nan"), 1.0), (0.0, float("nan"))])
def test_refuses_an_empty_range(bounds: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"filters.low"):
        AccuracyRange(low=bounds[0], high=bounds[1])


def test_a_rank_without_rows() -> None:
    empty = BATCH.rows(slice(0, 0))
    assert AccuracyRange(component="correct").keep_groups(empty).shape == (0,)
    assert AccuracyRange().apply(empty).num_sequences == 0
