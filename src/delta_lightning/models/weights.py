"""The weights that a policy stands for: what samplers are given and what an export holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from delta_lightning.models.adapted import adapter_of, base_parameters
from delta_lightning.models.sharding import full


@torch.no_grad()
def weights_of(policy: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and whole value of each parameter, one at a time; a tied head comes once. Collective where they are sharded.

    An adapter is merged: under the base's name comes W + change, added in the wider of the two dtypes and rounded to W's.
    """
    adapter = adapter_of(policy)
    for base, name, parameter in base_parameters(policy):
        change = None if adapter is None else adapter.change(policy, name)
        weight = full(parameter)
        yield base, weight if change is None else change.add_(weight).to(weight.dtype)


def weight_shapes(policy: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what `weights_of` gives, without giving it."""
    return {base: tuple(parameter.shape) for base, _, parameter in base_parameters(policy)}
