"""Frozen dataclasses of tensors that move, shrink and are cut as one. Importing this file does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TensorStruct:
    """Mixin for frozen dataclasses of tensors: applies a function to every tensor, nested structs included."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """A copy with `function` applied to every tensor field; other fields are kept."""
        import torch

        changes: dict[str, Any] = {}
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, torch.Tensor):
                changes[item.name] = function(value)
            elif isinstance(value, TensorStruct):
                changes[item.name] = value.map(function)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> Self:
        """A copy on `device`."""
        return self.map(lambda tensor: tensor.to(device))

    def rows(self, index: slice | Tensor) -> Self:
        """A copy with only the given rows (dimension 0) of every tensor."""
        return self.map(lambda tensor: tensor[index])

    def cut(self, length: int) -> Self:
        """A copy with only the first `length` positions of every field whose name ends in `_BT`."""
        changes: dict[str, Any] = {}
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, TensorStruct):
                changes[item.name] = value.cut(length)
            elif item.name.endswith("_BT") and value is not None:
                changes[item.name] = value[:, :length]
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]
