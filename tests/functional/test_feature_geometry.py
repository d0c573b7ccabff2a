"""Margins and distances of several units; the one-unit case is in test_delta.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from delta_lightning.functional.feature_geometry import FeatureGeometry
from delta_lightning.functional.sides import Sides
from delta_lightning.testing.views import ThreadRank, run_ranks

N, D, UNITS = 40, 3, 4


def world() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, advantages, units (one of them one-sided), weights."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(N, D, generator=generator, dtype=torch.float64)
    units = torch.randint(UNITS, (N,), generator=generator)
    advantages = torch.randn(N, generator=generator, dtype=torch.float64)
    advantages[::7] = 0
    advantages[units == 3] = advantages[units == 3].abs()
    weights_2N = Sides(advantages).weights_2N * torch.rand(N, generator=generator, dtype=torch.float64)
    return features, advantages, units, weights_2N


def by_hand() -> tuple[Tensor, Tensor]:
    """Margins and own distances from distances to centroids, unit by unit."""
    features, advantages, units, weights_2N = world()
    margins, distances = torch.zeros(N).double(), torch.zeros(N).double()
    for i in range(N):
        mine = units == units[i]
        mu = [(w[mine, None] * features[mine]).sum(0) / max(float(w[mine].sum()), 1e-8) for w in weights_2N]
        to = [(features[i] - point).square().sum() for point in mu]
        margins[i], distances[i] = to[1] - to[0], to[int(advantages[i] < 0)]
    return margins, distances


def test_units() -> None:
    features, advantages, units, weights_2N = world()
    geometry = FeatureGeometry(lambda: features.split(7), Sides(advantages, units, UNITS))
    margins, distances = by_hand()
    torch.testing.assert_close(geometry.margins(weights_2N), margins, rtol=0, atol=1e-12)
    torch.testing.assert_close(geometry.own_distances(weights_2N), distances, rtol=0, atol=1e-12)


@pytest.mark.parametrize("split", [[20, 20], [0, 40], [13, 0, 27]])
def test_units_over_ranks(split: list[int]) -> None:
    features, advantages, units, weights_2N = world()
    parts = torch.arange(N).split(split)

    def work(rank: int, ranks: ThreadRank) -> tuple[Tensor, Tensor]:
        mine = parts[rank]

        def chunks() -> Iterator[Tensor]:
            yield from features[mine].split(5) if len(mine) else ()

        geometry = FeatureGeometry(chunks, Sides(advantages[mine], units[mine], UNITS, ranks.all_sum))
        return geometry.margins(weights_2N[:, mine]), geometry.own_distances(weights_2N[:, mine])

    results = run_ranks(len(split), work)
    for index, wanted in enumerate(by_hand()):
        torch.testing.assert_close(torch.cat([result[index] for result in results]), wanted, rtol=0, atol=1e-12)
