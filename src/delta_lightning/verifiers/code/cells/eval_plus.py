"""EvalPlus problems in the judge: what is expected comes from the reference solution, run on the same inputs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

try:
    from judge import Broken, is_remote  # type: ignore[import-not-found]
except ImportError:
    from delta_lightning.verifiers.code.cells.judge import Broken, is_remote

_RELATIVE = 1e-7  # as in EvalPlus
_FLOATS = 1e-6  # its absolute tolerance where a problem names none and floats are expected
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, type(None))


class Problem:
    """One row, given as JSON text: `reference`, `entry_point`, `inputs`, `base` (how many of them come first and are in the
    assertion), `atol`, `assertion`, `unordered` (whether results are compared as sets).

    JSON has no tuples, sets or complex numbers. The row's own assertion has: it calls the function with the base inputs as
    they are meant, and what it shows about a position (all second arguments are tuples) holds for the other inputs.
    """

    def __init__(self, row: str) -> None:
        values = json.loads(row)
        self._entry: str = values["entry_point"]
        space: dict[str, Any] = {"__name__": "reference"}
        exec(compile(values["reference"], "reference", "exec", dont_inherit=True), space)
        self._reference: Callable[..., Any] = space[self._entry]
        kinds = _Kinds()
        for given, meant in zip(values["inputs"], _meant(values["assertion"], self._entry), strict=False):
            if len(meant) == len(given):
                kinds.learn(given, list(meant))
        self._inputs = [kinds.apply(given) for given in values["inputs"]]
        self._atol: float = values["atol"]
        self._unordered: bool = values["unordered"]
        # Where the reference gives a match object, found or not found is all that can be asked for.
        self._found_only = any(type(self._expect(given)) not in _PLAIN for given in self._inputs[: values["base"]])

    def agrees(self, candidate: Callable[..., Any], number: int) -> bool:
        """Whether the program gives what the reference gives for that input."""
        expected = self._expect(self._inputs[number])  # first: what the program returns must not take its memory
        got = candidate(*deepcopy(self._inputs[number]))
        if self._found_only:
            return _found(got) == _found(expected)
        if self._unordered and not is_remote(got) and got is not None:
            return bool(set(got) == set(expected))
        return bool(got == expected) or self._close(got, expected)

    def _expect(self, arguments: list[Any]) -> Any:
        try:
            return self._reference(*deepcopy(arguments))
        except Exception as error:
            raise Broken(f"the reference solution fails on {arguments!r}: {type(error).__name__}: {error}") from error

    def _close(self, got: Any, expected: Any) -> bool:
        atol = self._atol or (_FLOATS if _floats(expected) else 0.0)
        if not atol or type(got) is not type(expected):
            return False
        if isinstance(expected, list | tuple):
            return len(got) == len(expected) and all(_near(a, b, atol) for a, b in zip(got, expected, strict=True))
        return _near(got, expected, atol)


class _Kinds:
    """Which types stand at which positions: an argument's number, then "*" for every level inside it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Any, ...], set[type]] = {}

    def learn(self, given: list[Any], meant: list[Any]) -> None:
        """Compare a JSON input with the same one as the assertion has it."""
        for position, (json_value, value) in enumerate(zip(given, meant, strict=True)):
            self._learn((position,), json_value, value)

    def apply(self, given: list[Any]) -> list[Any]:
        """A JSON input as it is meant."""
        return [self._apply((position,), value, list) for position, value in enumerate(given)]

    def _learn(self, place: tuple[Any, ...], given: Any, meant: Any) -> None:
        if not isinstance(given, dict):
            self._seen.setdefault(place, set()).add(type(meant))
        pairs: Any = ()
        if isinstance(given, list) and isinstance(meant, list | tuple):
            pairs = zip(given, meant, strict=False)
        elif isinstance(given, dict) and isinstance(meant, dict):
            pairs = zip(given.values(), meant.values(), strict=False)
        for json_value, value in pairs:
            self._learn((*place, "*"), json_value, value)

    def _apply(self, place: tuple[Any, ...], value: Any, around: type) -> Any:
        seen = self._seen.get(place, set())
        if isinstance(value, str):
            return _number(value) if seen and seen <= {int, float, complex} else value
        inside = (*place, "*")
        if isinstance(value, dict):
            return {key: self._apply(inside, part, around) for key, part in value.items()}
        if not isinstance(value, list):
            return value
        containers = seen & {list, tuple, set, frozenset}
        # Where the assertion has no container, as the one around it.
        kind = around if not containers else next(iter(containers)) if len(containers) == 1 else list
        return kind(self._apply(inside, part, kind) for part in value)


class _Called(Exception):  # noqa: N818 -- not an error
    """The function under test was called: nothing after that matters."""


def _meant(assertion: str, entry: str) -> list[tuple[Any, ...]]:
    """The arguments of the call in each assert statement. Raises `Broken` where one makes none."""
    import ast  # large: not for every cell

    found: list[tuple[Any, ...]] = []

    def record(*arguments: Any) -> Any:
        found.append(arguments)
        raise _Called

    for statement in ast.parse(assertion).body:
        if isinstance(statement, ast.Assert):
            code = compile(ast.Module([statement], []), "assertion", "exec", dont_inherit=True)
            try:
                exec(code, {"math": math, entry: record})
            except _Called:
                continue
            except Exception as error:
                raise Broken(f"the assertion fails before it calls {entry}: {type(error).__name__}: {error}") from error
            raise Broken(f"an assertion does not call {entry}: {ast.unparse(statement)[:100]}")
    return found


def _number(text: str) -> int | float | complex | str:
    """The number that a text at a number's place writes; the text itself where it writes none."""
    for kind in (int, float, complex):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _found(value: Any) -> bool:
    return value if type(value) is bool else value is not None


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(part, float) for part in value)
    return isinstance(value, float)


def _near(got: Any, expected: Any, atol: float) -> bool:
    if got == expected or (got != got and expected != expected):
        return True
    numbers = (int, float, complex)
    return type(got) in numbers and type(expected) in numbers and abs(got - expected) <= atol + _RELATIVE * abs(expected)
