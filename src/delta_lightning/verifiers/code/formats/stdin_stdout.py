"""Lists of inputs and outputs in two columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import require
from delta_lightning.verifiers.code.formats.test_format import CallTests, InputTests, TestFormat, Unusable


@dataclass(frozen=True, kw_only=True)
class StdinStdout(TestFormat):
    """The program is run once for each of `inputs` and must print the entry of `outputs` at the same place.

    White space at the end of a line and at the end of the output does not count. An entry may also be a list of lines.

    Args:
        tolerance: largest difference, absolute or relative, between two numbers that still agree; 0 compares the texts of the
            lines alone. At least 0 and below 1.
    """

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        require(
            0 <= self.tolerance < 1,
            "tests.tolerance",
            wanted="at least 0 and below 1",
            got=self.tolerance,
            remedy="1e-6 is usual where answers are decimals; 0 compares texts.",
        )

    def fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({"inputs", "outputs"})

    def example(self) -> Mapping[str, Any]:
        """See the seam."""
        return {"inputs": ["1 2\n", "2 2\n"], "outputs": ["3\n", "4\n"]}

    def read(self, reference: Mapping[str, Any]) -> CallTests | InputTests:
        """See the seam."""
        return input_tests(reference.get("inputs"), reference.get("outputs"), self.tolerance)


def input_tests(inputs: Any, outputs: Any, tolerance: float) -> InputTests:
    """Pairs of texts. Raises `Unusable`."""
    if not isinstance(inputs, list | tuple) or not isinstance(outputs, list | tuple):
        raise Unusable("inputs and outputs are not two lists")
    if len(inputs) != len(outputs) or not inputs:
        raise Unusable(f"{len(inputs)} inputs and {len(outputs)} outputs")
    return InputTests(cases=tuple(zip(map(_text, inputs), map(_text, outputs), strict=True)), tolerance=tolerance)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise Unusable(f"an input or output is neither a text nor a list of lines: {str(value)[:60]!r}")
    return value
