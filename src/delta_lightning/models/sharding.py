"""A model whose parameters are spread over ranks (`fully_shard` of torch): how it is cut, entered, and made whole for a while.

Every other file calls `enter`, `whole` and `full` on any model; where nothing is sharded they cost nothing.

Outside of a forward-backward pass, of `enter` and of `whole`, each rank's parameters are its shards. That is what optimisers,
clipping and checkpoints read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

Result = TypeVar("Result")
ENTRY = "delta_entry"  # name of the method of a sharded model that runs a function inside its root's forward pass


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a causal LM is cut: a unit for each decoder layer, and one for embedding, final norm and head (tied or not).

    A unit's parameters are gathered before its forward pass, and again before its backward pass if they were let go.

    Attributes:
        mesh: one dimension, all ranks.
        compute_dtype: of gathered parameters and of the computation; None is the parameters' own.
        reduce_dtype: of the sum of gradients over ranks; None is the computation's, and float64 is never narrowed.
        reshard_after_forward: let a layer go after its forward pass. The other unit stays until its backward pass, which
            follows at once.
        offload: shards, gradients and optimiser in main memory.
    """

    mesh: Any
    compute_dtype: torch.dtype | None = None
    reduce_dtype: torch.dtype | None = None
    reshard_after_forward: bool = True
    offload: bool = False

    def apply(self, model: Any) -> Any:
        """Cut `model` (body `model.model`, head `model.lm_head`), in place; each unit moves to the device when it is cut."""
        from torch.distributed.fsdp import (
            CPUOffloadPolicy,
            MixedPrecisionPolicy,
            OffloadPolicy,
            fully_shard,
            register_fsdp_forward_method,
        )

        on_device = self.mesh.device_type != "cpu"
        wide = (self.compute_dtype or model.lm_head.weight.dtype) is torch.float64
        reduce_dtype = None if wide else self.reduce_dtype
        options: dict[str, Any] = {
            "mesh": self.mesh,
            "mp_policy": MixedPrecisionPolicy(param_dtype=self.compute_dtype, reduce_dtype=reduce_dtype),
            "offload_policy": CPUOffloadPolicy(pin_memory=on_device) if self.offload else OffloadPolicy(),
        }
        for layer in model.model.layers:
            fully_shard(layer, reshard_after_forward=self.reshard_after_forward, **options)
        fully_shard(model, reshard_after_forward=False, **options)
        setattr(model, ENTRY, MethodType(_call, model))
        register_fsdp_forward_method(model, ENTRY)
        model.delta_sharding = self
        return model


def _call(model: Any, function: Callable[..., Result], *args: Any) -> Result:
    return function(model, *args)


def sharding_of(model: Any) -> Sharding | None:
    """How a model was cut; None if it was not."""
    return getattr(model, "delta_sharding", None)


def enter(model: Any, function: Callable[..., Result], *args: Any) -> Result:
    """`function(model, *args)` with embedding, norm and head whole, layers gathered as they are reached.

    Collective under sharding: every rank must enter equally often, and go backward equally often. What the function gives must
    be tensors in tuples, lists or dicts, or the backward pass would not be seen.
    """
    if sharding_of(model) is None:
        return function(model, *args)
    result: Result = getattr(model, ENTRY)(function, *args)
    if not torch.is_grad_enabled():
        model.reshard()  # a backward pass would have done it
    return result


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """All parameters whole for the length of the block, in the dtype of the computation, for passes without gradient.

    Collective at its beginning only: inside, ranks may run different numbers of passes; leaving early is fine. Not for several
    threads. Costs the memory of the whole model on each rank.
    """
    sharding = sharding_of(model)
    if sharding is None:
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    with torch.no_grad():
        enter(model, _nothing)  # the first pass ever must go through the root
    try:
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(sharding.reshard_after_forward and unit is not model, recurse=False)


@contextmanager
def unsummed(module: Any) -> Iterator[None]:
    """Backward passes inside the block leave each rank its own gradient, whole; the next one after it sums all of them.

    Costs one gradient of the whole model on each rank, in the dtype of sums, until that pass. `module` may hold the model.
    """
    from torch.distributed.fsdp import FSDPModule

    units = [unit for unit in module.modules() if isinstance(unit, FSDPModule)]
    for unit in units:
        unit.set_requires_gradient_sync(False, recurse=False)
    try:
        yield
    finally:
        for unit in units:
            unit.set_requires_gradient_sync(True, recurse=False)


def _nothing(model: Any) -> None:
    return None


def full(value: Tensor) -> Tensor:
    """A parameter, detached and whole, on the device of the computation. Collective where it is sharded."""
    value = value.detach()
    if not isinstance(value, DTensor):
        return value
    kind = value.device_mesh.device_type
    gathered: Tensor = (value if value.device.type == kind else value.to(kind)).full_tensor()  # type: ignore[attr-defined]
    return gathered


def device_of(model: Any) -> torch.device:
    """Where the model computes; its shards may lie elsewhere."""
    weight = model.lm_head.weight
    kind = weight.device_mesh.device_type if isinstance(weight, DTensor) else weight.device.type
    if kind == weight.device.type or kind == "cpu":
        return torch.device(weight.device)
    return torch.device(kind, torch.accelerator.current_device_index())


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype of hidden states."""
    sharding = sharding_of(model)
    own: torch.dtype = model.lm_head.weight.dtype
    return own if sharding is None else sharding.compute_dtype or own
