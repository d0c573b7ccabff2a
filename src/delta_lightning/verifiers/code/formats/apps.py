"""APPS and TACO: one JSON object with inputs, outputs and sometimes a function's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.verifiers.code.formats.stdin_stdout import StdinStdout, input_tests
from delta_lightning.verifiers.code.formats.test_format import CallTests, InputTests, Unusable


@dataclass(frozen=True, kw_only=True)
class Apps(StdinStdout):
    """`input_output` of APPS (Hendrycks et al., arXiv 2105.09938) and TACO: an object, or its JSON text.

    With `fn_name` the tests call that function, a method of `Solution` where the program has that class; otherwise the program
    is run once for each input. The fields are those of `StdinStdout`.

    Args:
        tolerance: see `StdinStdout`; for runs, not for calls.
    """

    def fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({"input_output"})

    def example(self) -> Mapping[str, Any]:
        """See the seam."""
        return {"input_output": {"inputs": ["1 2\n", "2 2\n"], "outputs": ["3\n", "4\n"]}}

    def read(self, reference: Mapping[str, Any]) -> CallTests | InputTests:
        """See the seam."""
        tests = json_of(reference.get("input_output"), "'input_output'")
        if not isinstance(tests, dict):
            raise Unusable(f"'input_output' is not an object: {str(tests)[:60]!r}")
        inputs, outputs, name = tests.get("inputs"), tests.get("outputs"), tests.get("fn_name")
        if name is None:
            return input_tests(inputs, outputs, self.tolerance)
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
            raise Unusable("inputs and outputs are not two lists of the same length")
        if not all(isinstance(arguments, list) for arguments in inputs):
            raise Unusable("an input is not a list of arguments")
        return call_tests(name, list(zip(inputs, outputs, strict=True)), either=True)


def json_of(value: Any, what: str) -> Any:
    """The value itself, or what its JSON text says. Raises `Unusable`."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{what} is not JSON: {error}") from error


def call_tests(name: Any, calls: list[tuple[list[Any], Any]], *, either: bool) -> CallTests:
    """Calls of one function, a unit each: (arguments, expected). Raises `Unusable`."""
    if not isinstance(name, str) or not name.isidentifier():
        raise Unusable(f"the function's name is no Python name: {str(name)[:60]!r}")
    row = json.dumps([{"arguments": arguments, "expected": expected} for arguments, expected in calls])
    helper = f"from calls import Calls as _Calls, method as _method\n_calls = _Calls({row!r}, either={either})\n"
    # Naming both makes the judge ask the program for both.
    setup = f"_asked = lambda: (Solution, {name})\n_function = _method(globals(), {name!r})\n"
    units = tuple(f"assert _calls.agrees(_function, {number})" for number in range(len(calls)))
    return CallTests(helpers=(helper,), setup=(setup,), units=units, target=name)
