"""LiveCodeBench: test cases as JSON, run or called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.verifiers.code.formats.apps import call_tests, json_of
from delta_lightning.verifiers.code.formats.stdin_stdout import StdinStdout, input_tests
from delta_lightning.verifiers.code.formats.test_format import CallTests, InputTests, Unusable


@dataclass(frozen=True, kw_only=True)
class LiveCodeBench(StdinStdout):
    """`public_test_cases` and, where the column map has it, `private_test_cases` (Jain et al., arXiv 2403.07974).

    Each is a list of {"input", "output", "testtype"}, or its JSON text; "stdin" runs the program, "functional" calls a method
    of `Solution` with one JSON value per line of the input. Functional tests need the column `metadata` (its "func_name").

    The Hub's files hold most private tests as base64 of a compressed pickle. A pickle is a program: those rows are refused
    when the data loads. Unpack them once where that does no harm, and map a column with their JSON text.

    Args:
        tolerance: see `StdinStdout`; for runs, not for calls.
    """

    def fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({"public_test_cases"})

    def example(self) -> Mapping[str, Any]:
        """See the seam."""
        return {"public_test_cases": [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]}

    def read(self, reference: Mapping[str, Any]) -> CallTests | InputTests:
        """See the seam."""
        cases = [case for name in ("public_test_cases", "private_test_cases") for case in _cases(reference, name)]
        if not cases:
            raise Unusable("no test cases")
        kinds = {case["testtype"] for case in cases}
        if kinds == {"stdin"}:
            return input_tests([case["input"] for case in cases], [case["output"] for case in cases], self.tolerance)
        if kinds != {"functional"}:
            raise Unusable(f"testtype is neither stdin nor functional throughout: {sorted(map(str, kinds))}")
        metadata = json_of(reference.get("metadata"), "'metadata'")
        name = metadata.get("func_name") if isinstance(metadata, dict) else None
        return call_tests(name, [(_arguments(case["input"]), _value(case["output"])) for case in cases], either=False)


def _cases(reference: Mapping[str, Any], name: str) -> list[Any]:
    value = reference.get(name)
    if value is None or value == "":
        return []
    if isinstance(value, str) and not value.lstrip().startswith("["):
        raise Unusable(f"{name!r} is not JSON (base64 of a pickle is refused: unpack it once, by itself): {value[:40]!r}")
    cases = json_of(value, repr(name))
    keys = {"input", "output", "testtype"}
    if not isinstance(cases, list) or not all(isinstance(case, dict) and keys <= case.keys() for case in cases):
        raise Unusable(f"{name!r} is not a list of objects with {', '.join(sorted(keys))}")
    return cases


def _arguments(text: Any) -> list[Any]:
    if not isinstance(text, str):
        raise Unusable(f"the input of a functional test is not a text: {str(text)[:60]!r}")
    return [_value(line) for line in text.split("\n") if line.strip()]


def _value(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise Unusable(f"a functional test's line is not JSON: {str(text)[:60]!r}") from error
