"""MBPP: a list of assert statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.verifiers.code.formats.test_format import CallTests, TestFormat, Unusable, compiles, texts_of


@dataclass(frozen=True, kw_only=True)
class Mbpp(TestFormat):
    """Each entry of `test_list` is one unit (Austin et al., arXiv 2108.07732); any list of asserts has this shape.

    Optional fields of the reference, where the column map has them: `test_setup_code` (text, runs once before the tests and
    may use the program's names) and `test_imports` (list of texts, run before the program's names are there).

    Args:
        challenge: the entries of `challenge_test_list` are units too.
    """

    challenge: bool = False

    def fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({"test_list", "challenge_test_list"} if self.challenge else {"test_list"})

    def example(self) -> Mapping[str, Any]:
        """See the seam."""
        return {"test_list": ["assert add(1, 2) == 3"], "challenge_test_list": ["assert add(2, 2) == 4"]}

    def read(self, reference: Mapping[str, Any]) -> CallTests:
        """See the seam."""
        units = texts_of(reference, "test_list") + (texts_of(reference, "challenge_test_list") if self.challenge else ())
        if not units:
            raise Unusable("'test_list' is empty")
        setup = reference.get("test_setup_code") or ""
        imports = texts_of(reference, "test_imports") if reference.get("test_imports") else ()
        if not isinstance(setup, str):
            raise Unusable(f"'test_setup_code' is not a text: {str(setup)[:60]!r}")
        return CallTests(
            units=tuple(compiles(unit, "a test") for unit in units),
            setup=(compiles(setup, "'test_setup_code'"),) if setup.strip() else (),
            helpers=tuple(compiles(text, "'test_imports'") for text in imports),
        )
