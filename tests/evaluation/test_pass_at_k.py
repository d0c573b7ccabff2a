from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.utilities.data import dim_zero_sum

from delta_lightning.errors import ConfigError
from delta_lightning.evaluation import PassAtK
from delta_lightning.functional.pass_at_k import pass_at_k

SAMPLES, CORRECT = [20, 20, 30, 25], [3, 0, 30, 7]


def test_the_mean_over_problems() -> None:
    metric = PassAtK(k=(1, 10))
    metric.update(SAMPLES, CORRECT)
    got = metric.compute()
    for k in (1, 10):
        expected = sum(pass_at_k(n, c, k) for n, c in zip(SAMPLES, CORRECT, strict=True)) / 4
        assert got[f"pass@{k}"].dtype == torch.float64
        assert got[f"pass@{k}"].item() == pytest.approx(expected, abs=1e-12)


def test_updates_and_ranks_add_up() -> None:
    whole = PassAtK(k=(1, 5))
    whole.update(torch.tensor(SAMPLES), torch.tensor(CORRECT))
    ranks = [PassAtK(k=(1, 5)) for _ in range(3)]  # the third has no problem
    ranks[0].update(SAMPLES[:1], CORRECT[:1])
    ranks[0].update(SAMPLES[1:2], CORRECT[1:2])
    ranks[1].update(SAMPLES[2:], CORRECT[2:])
    ranks[2].update([], [])
    assert set(whole._reductions.values()) == {dim_zero_sum}  # over ranks
    total = sum(rank.total_K for rank in ranks)
    count = sum(rank.count for rank in ranks)
    assert torch.allclose(total / count, torch.stack(list(whole.compute().values())), atol=1e-12)


def test_nothing_is_no_number_and_reset_forgets() -> None:
    metric = PassAtK()
    metric.update([2], [1])
    assert metric.compute()["pass@1"].item() == 0.5
    metric.reset()
    assert math.isnan((metric.total_K / metric.count)[0])


def test_out_of_range() -> None:
    for k in ((), (0,), (1, 1), (1.5,)):
        with pytest.raises(ConfigError, match=r"PassAtK\.k"):
            PassAtK(k=k)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass@10"):
        PassAtK(k=(10,)).update([5], [5])
    with pytest.raises(ValueError, match="shorter"):
        PassAtK().update([5, 5], [5])
