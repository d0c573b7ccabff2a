"""A few trained parameters beside a frozen base: what every kind of adapter answers. `models/adapted.py` asks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Adapter(ABC):
    """Options of an adapter; nothing heavy is imported before a method needs it.

    Laws: `attach` changes no result before training (`draw` gives values under which the model is its base); parameters of the
    base keep their shapes, values and order; `draw` depends on the name, the shape and the seed only; body and head stay
    `model.model` and `model.lm_head`, and the head's weight is no adapter's.
    """

    @abstractmethod
    def check(self) -> Sequence[str]:
        """Lines that describe what was found. Raises `ConfigError` where its library is missing."""

    @abstractmethod
    def targets_in(self, model: Any) -> tuple[str, ...]:
        """Paths of the adapted modules of `model`, on any device. Raises `ConfigError` where a target is not there."""

    @abstractmethod
    def attach(self, model: Any) -> None:
        """Freeze the base and insert the adapter's parameters, in place, on their base's device, not yet drawn."""

    @abstractmethod
    def draw(self, name: str, shape: Sequence[int], seed: int) -> Tensor:
        """Value before training of the adapter's parameter `name`, float32, on the CPU."""

    @abstractmethod
    def off(self, model: Any) -> AbstractContextManager[None]:
        """Within the block the model is its base; for passes without gradient."""

    @abstractmethod
    def base_name(self, name: str) -> str | None:
        """Name that the parameter `name` of an adapted model has in the base; None for the adapter's own."""

    @abstractmethod
    def change(self, model: Any, name: str) -> Tensor | None:
        """What the adapter adds to the base's parameter `name` (of the adapted model), whole; None: nothing. Collective."""

    @abstractmethod
    def write(self, folder: Path, values: dict[str, Tensor], base: str | None) -> None:
        """Write the adapter as its library reads it. `values` has the adapter's parameters; `base`: its folder or Hub name."""
