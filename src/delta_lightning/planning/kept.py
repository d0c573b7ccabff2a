"""What a device holds from one step to the next: parameters, gradients, and the state of the optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from delta_lightning.planning.meter import LiveBytes

SAMPLE = (256, 256)  # elements of the parameter that an optimiser is tried on: 8-bit ones leave small parameters alone


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Parameters of a model.

    Attributes:
        total: bytes of all parameters, those of a tied head once. trained, count, trained_count: bytes of the trained ones;
            numbers of all and of the trained ones. largest: elements of the largest trained one; widest: of all.
        layer, root: elements of the largest decoder layer, and of everything outside of decoder layers.
    """

    total: int
    trained: int
    count: int
    trained_count: int
    largest: int
    widest: int
    layer: int
    root: int

    @classmethod
    def of(cls, model: Any) -> Weights:
        """Those of a causal LM on any device."""
        parameters = list(model.parameters())
        trained = [p for p in parameters if p.requires_grad]
        layers = [sum(p.numel() for p in layer.parameters()) for layer in model.model.layers]
        count = sum(p.numel() for p in parameters)
        return cls(
            total=sum(p.numel() * p.element_size() for p in parameters), count=count,
            trained=sum(p.numel() * p.element_size() for p in trained), trained_count=sum(p.numel() for p in trained),
            largest=max((p.numel() for p in trained), default=0),
            widest=max((p.numel() for p in parameters), default=0), layer=max(layers, default=0), root=count - sum(layers),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OptimizerCost:
    """Bytes per element of a trained parameter: `state` kept from step to step, `step` more while an update is made."""

    name: str
    state: float
    step: float


def optimizer_cost(make: Callable[[list[Tensor]], Any], dtype: torch.dtype) -> OptimizerCost | None:
    """What an optimiser keeps and needs, by two updates of a lone parameter on the CPU; None where it cannot run there.

    AdamW keeps two moments in the dtype of the parameter. Scalars such as the number of updates do not count.
    """
    parameter = torch.nn.Parameter(torch.zeros(SAMPLE, dtype=dtype))
    parameter.grad = torch.zeros_like(parameter)
    elements = parameter.numel()
    try:
        optimizer = make([parameter])
        optimizer.step()
        state = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, Tensor)]
        with LiveBytes([parameter, parameter.grad, *state]) as meter:
            optimizer.step()
    except (RuntimeError, NotImplementedError, AttributeError):  # kernels for GPUs only
        return None
    kept = sum(value.untyped_storage().nbytes() for value in state if value.numel() > 1)
    return OptimizerCost(name=type(optimizer).__name__, state=kept / elements, step=meter.peak / elements)
