"""What a verifier says about itself: a reference, a text and the verdict that it deserves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from delta_lightning.types import Status


@dataclass(frozen=True, kw_only=True)
class Example:
    """One completion with the status that it must get.

    Attributes:
        reference: what the data would give; it must be usable.
        text: the completion.
        status: what `score` must say of it; None where only the reference is to be tried.
        source: data set of the problem, for verifiers that dispatch by it.
    """

    reference: Mapping[str, Any]
    text: str
    status: Status | None
    source: str = "example"


@runtime_checkable
class Exemplified(Protocol):
    """A verifier that brings examples. `delta-lightning check` needs at least one of them, or `--reference`."""

    def examples(self) -> tuple[Example, ...]:
        """At least one that is CORRECT where that is possible, and one that is not. They may depend on the fields."""
        ...
