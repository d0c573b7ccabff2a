"""A model with an adapter: inserting it, drawing its values, turning it off, and what of the model it is.

Every function takes any model; one without an adapter costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from delta_lightning.models.adapter import Adapter
from delta_lightning.models.sharding import full

MARK = "delta_adapter"  # attribute of a model that has one


def attached(model: Any, adapter: Adapter | None) -> Any:
    """`model` with the adapter inserted, in place, its values not drawn: every rank's, also on the meta device."""
    if adapter is not None:
        adapter.attach(model)
        setattr(model, MARK, adapter)
    return model


@torch.no_grad()
def initialise(model: Any, seed: int) -> Any:
    """Draws the adapter's values, if the model has one; each rank puts its part in place: the same on any number of ranks."""
    adapter = adapter_of(model)
    if adapter is None:
        return model
    for name, parameter in own_parameters(model):
        value = adapter.draw(name, parameter.shape, seed).to(parameter.dtype)
        if isinstance(parameter, DTensor):
            spread = value.to(parameter.device_mesh.device_type)
            spread = distribute_tensor(spread, parameter.device_mesh, parameter.placements, src_data_rank=None)
            parameter.to_local().copy_(spread.to_local())
        else:
            parameter.copy_(value)
    return model


def adapter_of(model: Any) -> Adapter | None:
    """The adapter of a model; None if it has none."""
    return getattr(model, MARK, None)


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """The model is its base within the block, without gradient, whatever ends it."""
    adapter = adapter_of(model)
    with nullcontext() if adapter is None else adapter.off(model), torch.no_grad():
        yield


def own_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """Names and parameters of the adapter alone: none without one."""
    adapter = adapter_of(model)
    for name, parameter in model.named_parameters():
        if adapter is not None and adapter.base_name(name) is None:
            yield name, parameter


def base_parameters(model: Any) -> Iterator[tuple[str, str, Any]]:
    """Name in the base, name in the model, and parameter, of all that is no adapter's own: everything without one."""
    adapter = adapter_of(model)
    for name, parameter in model.named_parameters():
        base = name if adapter is None else adapter.base_name(name)
        if base is not None:
            yield base, name, parameter


@torch.no_grad()
def gathered_adapter(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the adapter, whole, in main memory, one at a time. Collective: every rank must exhaust it."""
    for name, parameter in own_parameters(model):
        yield name, full(parameter).cpu()


def described(model: Any) -> list[str]:
    """A line on what is trained, for people."""
    adapter = adapter_of(model)
    if adapter is None:
        return []
    trained = sum(parameter.numel() for _, parameter in own_parameters(model))
    total = sum(parameter.numel() for parameter in model.parameters())
    kinds = sorted({path.rpartition(".")[2] for path in adapter.targets_in(model)})
    share = f"{trained:,} of {total:,} parameters are trained ({trained / total:.2%})"
    return [f"adapter: {adapter} on {', '.join(kinds)}: {share}, the base is frozen"]
