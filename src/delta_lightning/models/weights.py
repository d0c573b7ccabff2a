"""The weights that a policy stands for: what samplers are given and what an export holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from delta_lightning.models.adapted import adapter_of
from delta_lightning.models.sharding import full


@torch.no_grad()
def weights_of(policy: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and whole value of each parameter, one at a time; a tied head comes once. Collective where they are sharded.

    An adapter is merged: under the base's name comes W + change, added in the wider of the two dtypes and rounded to W's.
    """
    adapter = adapter_of(policy)
    for name, parameter in policy.named_parameters():
        if adapter is None:
            yield name, full(parameter)
            continue
        base = adapter.base_name(name)
        if base is not None:
            yield base, _merged(full(parameter), adapter.change(policy, name))


def weight_shapes(policy: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what `weights_of` gives, without giving it."""
    adapter = adapter_of(policy)
    named = ((name if adapter is None else adapter.base_name(name), value) for name, value in policy.named_parameters())
    return {name: tuple(value.shape) for name, value in named if name is not None}


def _merged(weight: Tensor, change: Tensor | None) -> Tensor:
    return weight if change is None else change.add_(weight).to(weight.dtype)
