"""Shape checks for the first lines of public functions: a wrong shape would otherwise broadcast into a wrong number."""

from __future__ import annotations

from torch import Tensor


def check_rank(name: str, value: Tensor, rank: int) -> None:
    """Raise `ValueError` unless `value` has `rank` dimensions."""
    if value.ndim != rank:
        raise ValueError(f"{name}: wanted {rank} dimensions, got shape {tuple(value.shape)}")


def check_same_shape(**values: Tensor) -> None:
    """Raise `ValueError` unless all tensors have one shape."""
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"wanted one shape, got {', '.join(f'{name} {shape}' for name, shape in shapes.items())}")
