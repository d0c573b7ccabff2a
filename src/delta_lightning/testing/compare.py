"""Comparisons with the tolerances of the house: 1e-12 in float64, 1e-5 in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def close(got: Tensor, wanted: Tensor, what: str) -> None:
    """Equal within the tolerance of the coarser dtype, shapes and non-finite values included."""
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}"
    tolerance = max(TOLERANCE.get(value.dtype, 0.0) for value in (got, wanted))
    difference = (got.double() - wanted.double()).abs()
    assert bool((difference <= tolerance).all()), f"{what}: differs by up to {float(difference.max()):.3g}"


def check_tensor(value: Tensor, shape: Sequence[int], what: str, *, mask: Tensor | None = None) -> None:
    """The right shape, finite, without gradient, 0 outside the mask."""
    assert tuple(value.shape) == tuple(shape), f"{what}: shape {tuple(value.shape)}, wanted {tuple(shape)}"
    assert not value.requires_grad, f"{what}: carries a gradient"
    assert bool(torch.isfinite(value).all()), f"{what}: not finite"
    if mask is not None:
        assert not bool(value[~mask].any()), f"{what}: not 0 outside the mask"
