from __future__ import annotations

import pytest
import torch

from delta_lightning.advantages import GroupStandardised
from delta_lightning.errors import ConfigError
from delta_lightning.testing.worlds import make_batch, scored
from delta_lightning.testing.views import View


def test_standardises_within_groups() -> None:
    batch = make_batch(
        [1] * 10,
        rewards=[1, 0, 0, 1, 1, 1, 1, 0, 1, 1],
        groups=[4, 4, 4, 4, 1, 1, 1, 9, 9, 9],
        valid=[True] * 9 + [False],
    )
    got = GroupStandardised().advantages(View(scored(batch, [0] * 10)))
    half = 0.5**0.5
    assert got.dtype == torch.float32
    assert got.tolist() == pytest.approx([0.866024, -0.866024, -0.866024, 0.866024, 0, 0, 0, -half, half, 0], abs=2e-6)
    assert got[4:7].tolist() == [0, 0, 0]


def test_needs_two_completions_and_no_scores() -> None:
    assert GroupStandardised().min_completions() == 2
    assert GroupStandardised().needs() == frozenset()
    assert GroupStandardised().eps == 1e-6


def test_eps() -> None:
    batch = make_batch([1, 1], rewards=[1, -1], groups=[0, 0])
    got = GroupStandardised(eps=1).advantages(View(scored(batch, [0, 0])))
    assert got[0].item() == pytest.approx(1 / (2**0.5 + 1))
    with pytest.raises(ConfigError, match=r"advantage\.eps"):
        GroupStandardised(eps=-1e-9)
