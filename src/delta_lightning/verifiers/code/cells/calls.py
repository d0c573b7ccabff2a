"""Call-based problems of APPS, TACO and LiveCodeBench in the judge: a function's name, arguments, and what it must return."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


class Calls:
    """All calls of one problem, given as JSON text: a list of {"arguments": [...], "expected": ...}.

    Args:
        either: APPS and TACO wrap most results in a list of one; the bare result is accepted there too.
    """

    def __init__(self, row: str, *, either: bool) -> None:
        self._calls = json.loads(row)
        self._either = either

    def agrees(self, function: Callable[..., Any], number: int) -> bool:
        """Whether the function returns what call `number` expects; tuples count as lists."""
        call = self._calls[number]
        got, expected = _listed(function(*_keyed(call["arguments"]))), _keyed(call["expected"])
        if got == expected:
            return True
        return self._either and isinstance(expected, list) and len(expected) == 1 and bool(got == expected[0])


def method(space: dict[str, Any], name: str) -> Callable[..., Any]:
    """The function of that name: of a new `Solution`, where the program has that class, or of the program itself."""
    if "Solution" in space:
        found: Callable[..., Any] = getattr(space["Solution"](), name)
        return found
    if name not in space:
        raise NameError(f"the program has neither a class Solution nor a function {name}")
    function: Callable[..., Any] = space[name]
    return function


def _listed(value: Any) -> Any:
    """With lists for tuples, at every level: JSON has no tuples."""
    if isinstance(value, list | tuple):
        return [_listed(part) for part in value]
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    return value


def _keyed(value: Any) -> Any:
    """With integers for keys that are written integers, where all of a dictionary's are: JSON has only text keys."""
    if isinstance(value, list):
        return [_keyed(part) for part in value]
    if isinstance(value, dict):
        whole = bool(value) and all(key.lstrip("-").isdecimal() for key in value)
        return {int(key) if whole else key: _keyed(part) for key, part in value.items()}
    return value
