"""What sources have in common whose problems are read as they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, overload

from delta_lightning.data.table import Table
from delta_lightning.errors import require
from delta_lightning.types import Problem


class OnDemand(Sequence[Problem]):
    """A sequence that reads a problem when it is asked for it."""

    def tick(self, phase: str, done: int, total: int) -> None:
        """Called while a read takes long; whoever shows that puts its own in this place."""

    @abstractmethod
    def at(self, index: int) -> Problem:
        """The problem at `index`, which is in [0, len)."""

    def place(self) -> dict[str, Any]:
        """Where the reading stands, in plain values for a checkpoint; empty where any problem is at hand at once."""
        return {}

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Read on from there. Raises `ConfigError` where other rows are than were."""

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self.at(place) for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.at(index)


def check_split(table: Table, setting: str) -> None:
    """The table's own check, and that held-out problems are named: none can be split off. Raises `ConfigError`."""
    table.check()
    name = "held_out_file" if table.hub is None else "held_out_split"
    require(getattr(table, name) is not None, setting, wanted="held-out problems of their own", got="none",
            remedy=f"Set {name} of the table.")  # fmt: skip
