from __future__ import annotations

import copy
import math

import pytest
import torch

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

    def gather(value: torch.Tensor, group: object) -> list[torch.Tensor]:
        """What an all-gather of that state gives each rank."""
        return [rank.count if value.ndim == 0 else rank.total_K for rank in states]

    states = [copy.deepcopy(rank) for rank in ranks]
    for rank in ranks:
        rank.sync(dist_sync_fn=gather, distributed_available=lambda: True)
        assert rank.count == 4
        assert torch.allclose(rank.total_K / rank.count, torch.stack(list(whole.compute().values())), atol=1e-12)


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
