"""Small models with an adapter, as if it had been trained, and the plain models that they stand for."""

from __future__ import annotations

import copy
from typing import Any

import torch

from delta_lightning.models.adapted import attached, initialise, own_parameters
from delta_lightning.models.lora import LoRA
from delta_lightning.models.weights import weights_of
from support.models import tiny_model


def adapted(family: str = "qwen3", *, adapter: LoRA | None = None, moved: bool = True, seed: int = 0, **changes: Any) -> Any:
    """A tiny model with LoRA; `moved`: its matrices B are random, as training would leave them."""
    model = initialise(attached(tiny_model(family, **changes), adapter or LoRA(rank=4)), seed)
    if moved:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in own_parameters(model):
                if ".lora_B." in name:
                    parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def merged(model: Any) -> Any:
    """A plain model, of the same class and config, with the weights that `model` stands for; in its dtype."""
    with torch.random.fork_rng(devices=[]):
        plain = type(model)(copy.deepcopy(model.config)).to(next(model.parameters()).dtype).eval()
    own = dict(plain.named_parameters())
    with torch.no_grad():
        for name, value in weights_of(model):
            own.pop(name).copy_(value)
    assert not own
    return plain


def snapshot(model: Any) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: copy.deepcopy(value.detach()) for name, value in model.named_parameters()}
