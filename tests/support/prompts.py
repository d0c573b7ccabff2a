"""Prompts of numbers for tests, and a change of weights such as training makes."""

from __future__ import annotations

from typing import Any

import torch

from delta_lightning.types import Prompt


def number_prompts(count: int = 6) -> list[Prompt]:
    """`count` prompts of 4, 5, ... tokens below 62."""
    return [
        Prompt(id=f"p{i}", text="", token_ids=tuple(2 + (5 * i + k) % 60 for k in range(4 + i)), source="test", reference={})
        for i in range(count)
    ]


def train(model: Any, scale: float = 0.03) -> None:
    """What an optimiser step does to the weights."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            value += scale * torch.randn(value.shape, generator=generator)
