"""Metrics as exact ratios: totals and counts are added over micro-batches and ranks, and divided once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from delta_lightning.trainer.ranks import Ranks


class Ratio(Metric):
    """total / count, both summed over updates and ranks; NaN while the count is 0.

    Example: `ratio.update(per_token.sum(), mask.sum())` for a mean over tokens.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor | float, count: Tensor | float = 1.0) -> None:
        """Add a total and the number of things that it is a total of."""
        self.total += torch.as_tensor(total, dtype=torch.float64, device=self.total.device).detach()
        self.count += torch.as_tensor(count, dtype=torch.float64, device=self.count.device).detach()

    def compute(self) -> Tensor:
        """The ratio, float64."""
        return self.total / self.count


class MetricBook:
    """Named ratios and maxima of one rollout or of one optimiser step, summed over ranks in one collective."""

    def __init__(self) -> None:
        self._ratios: dict[str, Ratio] = {}
        self._maxima: dict[str, float] = {}
        self._minima: dict[str, float] = {}

    def add(self, name: str, total: Tensor | float, count: Tensor | float = 1.0) -> None:
        """Add to the ratio `name`."""
        self._ratios.setdefault(name, Ratio()).update(total, count)

    def maximum(self, name: str, value: Tensor | float) -> None:
        """Raise the maximum `name`."""
        self._maxima[name] = max(self._maxima.get(name, float("-inf")), float(value))

    def minimum(self, name: str, value: Tensor | float) -> None:
        """Lower the minimum `name`."""
        self._minima[name] = min(self._minima.get(name, float("inf")), float(value))

    def take(self, ranks: Ranks) -> dict[str, float]:
        """All values over all ranks, and an empty book. Ratios of nothing are left out. Collective."""
        parts = ranks.all_objects((self._totals(), self._maxima, self._minima))
        self.__init__()  # type: ignore[misc]
        totals: dict[str, list[float]] = {}
        values: dict[str, float] = {}
        for ratios, maxima, minima in parts:
            for name, pair in ratios.items():
                totals[name] = [a + b for a, b in zip(totals.get(name, [0.0, 0.0]), pair, strict=True)]
            values |= {name: max(values.get(name, value), value) for name, value in maxima.items()}
            values |= {name: min(values.get(name, value), value) for name, value in minima.items()}
        return values | {name: total / count for name, (total, count) in totals.items() if count}

    def _totals(self) -> Mapping[str, tuple[float, float]]:
        return {name: (float(ratio.total), float(ratio.count)) for name, ratio in self._ratios.items()}
