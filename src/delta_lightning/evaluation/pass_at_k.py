"""pass@k over problems, micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from delta_lightning.errors import require
from delta_lightning.functional.pass_at_k import pass_at_k


class PassAtK(Metric):
    """Mean over problems of the unbiased estimate of pass@k (`functional.pass_at_k`); the same on any number of ranks.

    All answers to a problem are given in one `update`. Sums and counts are float64 and added over ranks.

    Example: `metric = PassAtK(k=(1, 10)); metric.update(samples=[20, 20], correct=[3, 0]); metric.compute()["pass@1"]`.

    Args:
        k: one or more different whole numbers of at least 1.
        settings: of `torchmetrics.Metric`.

    Raises:
        ConfigError: `k` out of range.
        ValueError: from `update`, for a problem with fewer samples than the largest k, or more correct ones than samples.
    """

    full_state_update = False
    total_K: Tensor
    count: Tensor

    def __init__(self, k: Sequence[int] = (1,), **settings: Any) -> None:
        super().__init__(**settings)
        whole = all(type(one) is int and one >= 1 for one in k)
        ok = whole and 0 < len(k) == len(set(k))
        require(ok, "PassAtK.k", wanted="different whole numbers of at least 1", got=tuple(k), remedy="(1, 10) is usual.")
        self.k = tuple(k)
        self.add_state("total_K", default=torch.zeros(len(k), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, samples: Sequence[int] | Tensor, correct: Sequence[int] | Tensor) -> None:
        """Add problems: how many answers each has, and how many of them are right."""
        pairs = list(zip(_integers(samples), _integers(correct), strict=True))
        values = [[pass_at_k(n, c, k) for k in self.k] for n, c in pairs]
        if values:
            self.total_K += torch.tensor(values, dtype=torch.float64, device=self.total_K.device).sum(0)
            self.count += len(values)

    def compute(self) -> dict[str, Tensor]:
        """{"pass@k": float64} for each k; NaN before the first problem."""
        return {f"pass@{k}": total / self.count for k, total in zip(self.k, self.total_K, strict=True)}


def _integers(values: Sequence[int] | Tensor) -> list[int]:
    return [int(value) for value in (values.tolist() if isinstance(values, Tensor) else values)]
