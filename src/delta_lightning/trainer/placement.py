"""Where the policy goes once it is loaded: a strategy that shards it decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from delta_lightning.models.adapter import Adapter
from delta_lightning.models.weight_files import WeightFiles


@runtime_checkable
class Placement(Protocol):
    """A Lightning strategy that places the policy itself."""

    def place(self, load: Callable[[], Any], files: Callable[[], WeightFiles | None], adapter: Adapter | None) -> Any:
        """The policy that `load` gives, as this strategy wants it. Collective; `load` need not be called on every rank.

        Where `files` gives the files of the same model, without the adapter, each rank reads its part from them instead.
        """
        ...
