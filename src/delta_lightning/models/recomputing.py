"""Activation checkpointing: decoder layers keep their inputs only, and run again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recompute_layers(model: Any) -> Any:
    """Each decoder layer of `model`, in place, runs a second time in a backward pass instead of keeping its activations.

    Parameters, their names and the results stay the same. The switch of `transformers` works in training mode only; here the
    policy is always in evaluation mode, so that dropout never makes old and new log-probabilities differ.
    """
    for layer in model.model.layers:
        layer.forward = _Recomputed(layer.forward)
    return model


class _Recomputed:
    """Calls that may be followed by a backward pass are checkpointed; others are plain."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return checkpoint(self._forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)  # nothing is random
