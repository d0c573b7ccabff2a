"""From the columns of a data set to tests that can be run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Unusable(ValueError):  # noqa: N818 -- reads as what the row is
    """A row whose tests cannot be run; the text says why."""


@dataclass(frozen=True, kw_only=True)
class CallTests:
    """Tests that call the program, for the judge's cell (`cells/judge.py`).

    Attributes:
        helpers: texts that run before the program's names are there; what they define hides the program's own names.
        setup: texts that run with the program's names.
        units: texts, in order; each passes or does not.
        target: the name under test, which hides a helper's of that name; None where the units name it.
        alias: a second name for the target.
    """

    units: tuple[str, ...]
    helpers: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    target: str | None = None
    alias: str | None = None


@dataclass(frozen=True, kw_only=True)
class InputTests:
    """Tests that run the whole program: (standard input, expected standard output) each.

    Attributes:
        tolerance: largest difference, absolute or relative, between two numbers that still agree; 0 compares texts.
    """

    cases: tuple[tuple[str, str], ...]
    tolerance: float = 0.0


class TestFormat(ABC):
    """How one data set writes its tests.

    Laws: `read` is pure and quick, neither runs nor unpickles anything, and raises `Unusable` (never something else) for
    whatever a reference may hold.
    """

    __test__ = False  # pytest: this is no test class

    @abstractmethod
    def fields(self) -> frozenset[str]:
        """Keys of the reference that `read` needs."""

    @abstractmethod
    def read(self, reference: Mapping[str, Any]) -> CallTests | InputTests:
        """The tests of a row. Raises `Unusable`."""

    def example(self) -> Mapping[str, Any]:
        """A reference for the laws, empty without one. Its tests want `add(a, b)`; if they run programs, the sum of a line."""
        return {}


def text_of(reference: Mapping[str, Any], name: str) -> str:
    """A field that must be a text with something in it. Raises `Unusable`."""
    value = reference.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"{name!r} is not a text, or empty: {str(value)[:60]!r}")
    return value


def texts_of(reference: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A field that must be a list of texts, each with something in it. Raises `Unusable`."""
    value = reference.get(name)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item.strip() for item in value):
        raise Unusable(f"{name!r} is not a list of texts: {str(value)[:60]!r}")
    return tuple(value)


def compiles(text: str, what: str) -> str:
    """The data set's own text, if it is Python; it is compiled, not run. Raises `Unusable`."""
    try:
        compile(text, what, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise Unusable(f"{what} does not compile: {type(error).__name__}: {error}: {text.strip()[:80]!r}") from error
    return text


def identifier(reference: Mapping[str, Any], name: str) -> str:
    """A field that must be a Python name. Raises `Unusable`."""
    value = text_of(reference, name)
    if not value.isidentifier():
        raise Unusable(f"{name!r} is no Python name: {value[:60]!r}")
    return value
