"""EvalPlus: inputs, and a reference solution that says what is right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.verifiers.code.formats.test_format import CallTests, TestFormat, Unusable, compiles, identifier, text_of


@dataclass(frozen=True, kw_only=True)
class EvalPlus(TestFormat):
    """MBPP+ and HumanEval+ in their original files (Liu et al., arXiv 2305.01210); each input is one unit.

    The reference solution runs in the judge, never beside the program, and the results are compared as EvalPlus does: equal;
    or, where floats are expected or `atol` is given, within it (1e-6, plus 1e-7 of the value); as sets for the functions of
    `unordered`; found or not found where the reference gives a match object. Types that JSON lacks (tuples, sets, complex
    numbers) are learnt from the row's `assertion`. The reference's own time counts towards the program's `seconds`: give MBPP+
    30 and more, as a few references take seconds themselves.

    Stricter than EvalPlus in four MBPP+ tasks, for which it also accepts what a second reading of the task gives
    (`are_equivalent`, `sum_div`, `surface_Area`, `digit_distance_nums`).

    Map `prompt`, `entry_point`, `canonical_solution`, `base_input`, `plus_input`, `atol`, and `assertion` where there is one.

    Args:
        plus: use the added inputs too, and not only the original ones.
        unordered: functions whose results are compared as sets; the defaults are those of EvalPlus for MBPP+.
    """

    plus: bool = True
    unordered: tuple[str, ...] = (
        "similar_elements",
        "find_char_long",
        "common_in_nested_lists",
        "extract_singly",
        "larg_nnum",
        "intersection_array",
        "find_dissimilar",
        "Diff",
    )

    def fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({"prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol"})

    def example(self) -> Mapping[str, Any]:
        """See the seam."""
        return {
            "prompt": "def add(a, b):\n", "entry_point": "add", "canonical_solution": "    return a + b\n",
            "base_input": [[1, 2]], "plus_input": [[2, 2]], "atol": 0,
        }  # fmt: skip

    def read(self, reference: Mapping[str, Any]) -> CallTests:
        """See the seam."""
        entry = identifier(reference, "entry_point")
        solution = text_of(reference, "prompt") + text_of(reference, "canonical_solution")
        assertion = reference.get("assertion") or ""
        atol = reference.get("atol")
        if not isinstance(assertion, str):
            raise Unusable(f"'assertion' is not a text: {str(assertion)[:60]!r}")
        if isinstance(atol, bool) or not isinstance(atol, int | float) or not 0 <= atol < 1e9:
            raise Unusable(f"'atol' is not a number of at least 0: {str(atol)[:60]!r}")
        base = _inputs(reference, "base_input")
        inputs = base + (_inputs(reference, "plus_input") if self.plus else [])
        if not inputs:
            raise Unusable("no inputs")
        row = {
            "reference": compiles(solution, "the reference solution"),
            "entry_point": entry,
            "inputs": inputs,
            "base": len(base),
            "unordered": entry in self.unordered,
            "atol": atol,
            "assertion": compiles(assertion, "'assertion'"),
        }
        helper = f"from eval_plus import Problem as _Problem\n_problem = _Problem({json.dumps(row)!r})\n"
        units = tuple(f"assert _problem.agrees({entry}, {number})" for number in range(len(inputs)))
        return CallTests(helpers=(helper,), units=units, target=entry)


def _inputs(reference: Mapping[str, Any], name: str) -> list[Any]:
    value = reference.get(name)
    if value == {}:  # how MBPP+ writes that there are none
        return []
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise Unusable(f"{name!r} is not a list of lists of arguments: {str(value)[:60]!r}")
    return value
