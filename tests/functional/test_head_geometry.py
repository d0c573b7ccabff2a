"""The geometry of exact head gradients against features [N, V D] written out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from delta_lightning.functional.feature_geometry import FeatureGeometry
from delta_lightning.functional.head_geometry import HeadGeometry, HeadTokens
from delta_lightning.functional.sides import Sides
from delta_lightning.testing.views import ThreadRank, run_ranks

N, V, D, TEMPERATURE = 37, 11, 4, 1.3


@dataclass
class Head:
    """An LM head that counts columns of logits and remembers the largest matrix of them."""

    weight_VD: Tensor
    columns: int = 0
    largest: int = 0

    def logits(self, hidden_ND: Tensor, vocabulary: slice = slice(None)) -> Tensor:
        logits = hidden_ND @ self.weight_VD[vocabulary].T / TEMPERATURE
        self.columns += logits.numel()
        self.largest = max(self.largest, logits.numel())
        return logits


@dataclass
class World:
    """Tokens, a head, and weights of the sides."""

    dtype: torch.dtype = torch.float64
    offset: float = 0.0
    passes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.hidden = (torch.randn(N, D, generator=generator, dtype=torch.float64) + self.offset).to(self.dtype)
        self.targets = torch.randint(V, (N,), generator=generator)
        self.units = torch.randint(3, (N,), generator=generator)
        self.advantages = torch.randn(N, generator=generator, dtype=torch.float64)
        self.advantages[::6] = 0
        self.weights = Sides(self.advantages).weights_2N * torch.rand(N, generator=generator, dtype=torch.float64)
        self.head = Head(torch.randn(V, D, generator=generator, dtype=torch.float64).to(self.dtype))

    def tokens(self, which: Tensor | None = None) -> Iterator[HeadTokens]:
        self.passes += 1
        which = torch.arange(N) if which is None else which
        for chunk in torch.arange(len(which)).split(10) if len(which) else ():
            part = slice(int(chunk[0]), int(chunk[-1]) + 1)
            yield HeadTokens(part, self.hidden[which[chunk]], self.targets[which[chunk]])

    def features(self) -> Tensor:
        """[N, V D] by automatic differentiation of log p, times the temperature; float64."""
        rows = []
        for h, y in zip(self.hidden.double(), self.targets, strict=True):
            weight = self.head.weight_VD.double().clone().requires_grad_()
            torch.log_softmax(weight @ h / TEMPERATURE, 0)[y].backward()
            assert weight.grad is not None
            rows.append(weight.grad.flatten() * TEMPERATURE)
        return torch.stack(rows)

    def sides(self, *, units: bool = False) -> Sides:
        return Sides(self.advantages, self.units, 3) if units else Sides(self.advantages)

    def geometry(self, *, units: bool = False, **sizes: int) -> HeadGeometry:
        return HeadGeometry(self.tokens, lambda: nullcontext(self.head), self.sides(units=units), **sizes)


def check(world: World, geometry: HeadGeometry, tolerance: float) -> None:
    """Tokens with A = 0 are on no side: what they get means nothing."""
    features = world.features()
    wanted = FeatureGeometry(lambda: [features], geometry.sides)
    some = world.advantages != 0
    for name in ("margins", "own_distances"):
        got, exact = getattr(geometry, name)(world.weights), getattr(wanted, name)(world.weights)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got[some], exact[some], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("rows", [1, 4, 11])
def test_equals_features_written_out(rows: int, units: bool) -> None:
    """Blocks of the vocabulary of one row, of some that do not divide V, and of all."""
    world = World()
    blocks = 16 * D * rows * (3 if units else 1)
    check(world, world.geometry(units=units, block_bytes=blocks, logits_bytes=4 * 3 * rows), 1e-12)
    assert world.head.largest <= max(V, 3 * rows)


def test_float32() -> None:
    world = World(dtype=torch.float32)
    check(world, world.geometry(), 1e-5)


def test_float32_with_an_offset_common_to_all_hidden_states() -> None:
    """Offset 30 with a spread of 1: errors relative to |v| |d| stay those of float32."""
    world = World(dtype=torch.float32, offset=30.0)
    features = world.features()
    exact = FeatureGeometry(lambda: [features], world.sides()).margins(world.weights)
    error = (world.geometry().margins(world.weights) - exact)[world.advantages != 0].abs().max()
    assert float(error) <= 1e-5 * float(features.norm(dim=1).max()) ** 2


def test_number_of_passes_and_products() -> None:
    """1 pass and 1 product for the normaliser, then 2 passes per block and 4 products per answer; 2 of them are logits."""
    world = World()
    geometry = world.geometry(block_bytes=16 * D * 4)
    geometry.margins(world.weights)
    assert world.passes == 1 + 2 * 3
    assert world.head.columns == N * V * (1 + 2)
    geometry.own_distances(world.weights)
    assert world.passes == 1 + 2 * 3 * 2
    assert world.head.columns == N * V * (1 + 2 * 2)


@pytest.mark.parametrize("split", [[20, 17], [0, 37], [37, 0, 0]])
@pytest.mark.parametrize("units", [False, True])
def test_independent_of_ranks(split: list[int], units: bool) -> None:
    """A rank without tokens makes the same collectives."""
    whole = World()
    geometry = whole.geometry(units=units, block_bytes=600)
    wanted = geometry.margins(whole.weights), geometry.own_distances(whole.weights)
    parts = torch.arange(N).split(split)

    def work(rank: int, ranks: ThreadRank) -> tuple[Tensor, Tensor]:
        world, mine = World(), parts[rank]
        sides = Sides(world.advantages[mine], world.units[mine] * units, 3 if units else 1, ranks.all_sum)
        local = HeadGeometry(lambda: world.tokens(mine), lambda: nullcontext(world.head), sides, block_bytes=600)
        return local.margins(world.weights[:, mine]), local.own_distances(world.weights[:, mine])

    results = run_ranks(len(split), work)
    for index, value in enumerate(wanted):
        torch.testing.assert_close(torch.cat([result[index] for result in results]), value, rtol=0, atol=1e-12)


def test_certain_tokens_have_short_gradients_without_cancellation() -> None:
    """1 - p of 2e-15: |v|^2 = |e_y - p|^2 |h|^2 to full precision."""
    world = World()
    world.hidden[0] = torch.tensor([1.0, 0, 0, 0])
    world.head.weight_VD[:, 0] = torch.tensor([36.0 * TEMPERATURE, *[0.0] * 10], dtype=torch.float64)
    world.targets[0], world.weights = torch.tensor(0), world.weights * 0
    world.advantages[0] = 1.0
    q = 10 * torch.exp(torch.tensor(-36.0).double())
    wanted = q**2 + q**2 / 10
    got = world.geometry().own_distances(world.weights)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=0)
