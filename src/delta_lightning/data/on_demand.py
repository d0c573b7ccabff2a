"""What sources have in common whose problems are read as they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from delta_lightning.data.table import Table
from delta_lightning.errors import require
from delta_lightning.types import Problem


class OnDemand(Sequence[Problem]):
    """A sequence that reads a problem when it is asked for it."""

    @abstractmethod
    def at(self, index: int) -> Problem:
        """The problem at `index`, which is in [0, len)."""

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
