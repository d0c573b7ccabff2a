"""Scaled rows against the same features written out: units, ranks, precision, blocks, offsets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from delta_lightning.functional.delta import coefficients
from delta_lightning.functional.feature_geometry import FeatureGeometry
from delta_lightning.functional.scaled_geometry import ScaledGeometry, ScaledRows
from delta_lightning.functional.sides import Sides
from delta_lightning.testing.views import ThreadRank, run_ranks

N, D, UNITS = 60, 5, 4


def world(dtype: torch.dtype = torch.float64, *, tokens: int = N, width: int = D, offset: float = 0.0) -> tuple[Tensor, ...]:
    """Scales, rows, advantages, units (one of them one-sided)."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(tokens, width, generator=generator, dtype=torch.float64) + offset
    scales = torch.rand(tokens, generator=generator, dtype=torch.float64)
    units = torch.randint(UNITS, (tokens,), generator=generator)
    advantages = torch.randn(tokens, generator=generator, dtype=torch.float64)
    advantages[::7] = 0
    advantages[units == 3] = advantages[units == 3].abs()
    return scales.to(dtype), rows.to(dtype), advantages, units


def pair(scales: Tensor, rows: Tensor, sides: Sides, size: int = 7) -> tuple[ScaledGeometry, FeatureGeometry]:
    """The geometry under test in chunks of `size`, and the exact one: float64 features of the same numbers."""
    exact = scales.double()[:, None] * rows.double()
    return (
        ScaledGeometry(lambda: (ScaledRows(*both) for both in zip(scales.split(size), rows.split(size), strict=True)), sides),
        FeatureGeometry(lambda: [exact], sides),
    )


@pytest.mark.parametrize("one_unit", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-5)])
def test_equals_the_features_written_out(dtype: torch.dtype, tolerance: float, one_unit: bool) -> None:
    scales, rows, advantages, units = world(dtype)
    sides = Sides(advantages) if one_unit else Sides(advantages, units, UNITS)
    got, want = pair(scales, rows, sides)
    for weights_2N in (sides.weights_2N, sides.weights_2N * 1e-9 * torch.rand(N, generator=torch.Generator().manual_seed(1))):
        torch.testing.assert_close(got.margins(weights_2N), want.margins(weights_2N), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            got.own_distances(weights_2N), want.own_distances(weights_2N), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("split", [[30, 30], [0, 60], [13, 0, 47]])
def test_ranks(split: list[int]) -> None:
    scales, rows, advantages, units = world()
    parts = torch.arange(N).split(split)

    def work(rank: int, ranks: ThreadRank) -> tuple[Tensor, int]:
        mine = parts[rank]

        def chunks() -> Iterator[ScaledRows]:
            if len(mine):
                yield ScaledRows(scales[mine], rows[mine])

        geometry = ScaledGeometry(chunks, Sides(advantages[mine], units[mine], UNITS, ranks.all_sum))
        return coefficients(geometry, refinements=2), ranks.calls

    results = run_ranks(len(split), work)
    want = coefficients(pair(scales, rows, Sides(advantages, units, UNITS))[1], refinements=2)
    torch.testing.assert_close(torch.cat([one for one, _ in results]), want, rtol=0, atol=1e-12)
    assert len({calls for _, calls in results}) == 1


def test_passes_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scales, rows, advantages, _ = world()
    passes = 0

    def chunks() -> Iterator[ScaledRows]:
        nonlocal passes
        passes += 1
        yield ScaledRows(scales[:0], rows[:0])
        yield ScaledRows(scales, rows)

    want = coefficients(pair(scales, rows, Sides(advantages))[1])
    monkeypatch.setattr("delta_lightning.functional.sides.BLOCK_ELEMENTS", 17)
    torch.testing.assert_close(coefficients(ScaledGeometry(chunks, Sides(advantages))), want, rtol=0, atol=1e-12)
    assert passes == 4


@pytest.mark.parametrize("offset", [0.0, 0.2, 3.0, 30.0])
@pytest.mark.parametrize("equal_scales", [False, True])
def test_float32_with_an_offset_common_to_all_rows(offset: float, equal_scales: bool) -> None:
    """In standard deviations. Coefficients against exact ones of the same float32 numbers, which no offset may spoil."""
    scales, rows, advantages, _ = world(torch.float32, tokens=3000, width=512, offset=offset)
    got, want = pair(torch.ones_like(scales) if equal_scales else scales, rows, Sides(advantages), size=1000)
    error = float((coefficients(got) - coefficients(want)).abs().max())
    assert error < (1e-5 if equal_scales else 1e-6), error


def test_rows_that_do_not_fit() -> None:
    scales, rows, advantages, _ = world()
    for few_scales, few_rows in (
        (scales[:9], rows),
        (scales[:9], rows[:9]),
        (torch.cat([scales, scales]), torch.cat([rows, rows])),
    ):
        geometry = ScaledGeometry(lambda s=few_scales, r=few_rows: [ScaledRows(s, r)], Sides(advantages))
        with pytest.raises(ValueError, match="rows"):
            geometry.margins(Sides(advantages).weights_2N)
