"""Gradients of a sharded model in a backward pass: whole until a unit's are summed over ranks, in two dtypes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What `fully_shard` of torch does with gradients, done to a model that is not sharded, so that their bytes come and go.

    The gradients of a unit (a decoder layer; embedding, norm and head) are whole, in the dtype of the computation, until its
    backward pass ends; the root's from the head to the embedding. Then they are copied into the input of the sum, in its own
    dtype, and are there in both until they are copied; a share of it, the result, is a moment beside it. The input stays until
    the next unit's. (`foreach_reduce` and `FSDPParamGroup.post_backward` of torch 2.13.)

    Attributes:
        ranks: that sum. itemsize: bytes of an element in the sum.
    """

    ranks: int
    itemsize: int

    @contextmanager
    def of(self, model: Any) -> Iterator[None]:
        """Layers sum when the gradient of their input is known; all that is left does when the block ends."""
        held: list[Tensor] = []

        def arrives(layer: Any) -> Callable[..., None]:
            def before(_: Any, inputs: tuple[Tensor, ...]) -> None:
                if inputs[0].requires_grad:
                    inputs[0].register_hook(lambda _: self._sum(layer.parameters(), held))  # type: ignore[no-untyped-call]

            return before

        handles = [layer.register_forward_pre_hook(arrives(layer)) for layer in model.model.layers]
        try:
            yield
            self._sum(model.parameters(), held)
        finally:
            for handle in handles:
                handle.remove()

    def _sum(self, parameters: Iterable[Tensor], held: list[Tensor]) -> None:
        with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
        size = self.itemsize * sum(parameter.numel() for parameter in with_gradient)
        held.clear()
        held.append(torch.empty(size, dtype=torch.uint8))
        for parameter in with_gradient:
            parameter.grad = None
        torch.empty(-(-size // self.ranks), dtype=torch.uint8)
