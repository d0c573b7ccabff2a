"""HumanEval: a function `check` that takes the candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.verifiers.code.formats.test_format import CallTests, TestFormat, Unusable, compiles, identifier, text_of


@dataclass(frozen=True, kw_only=True)
class HumanEval(TestFormat):
    """`check(candidate)` is one unit (Chen et al., arXiv 2107.03374).

    The prompt runs in the judge first: its imports and helper functions are the tests' own, and a program that redefines such a
    helper changes nothing. Map the columns `prompt`, `test` and `entry_point`.
    """

    def fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({"prompt", "test", "entry_point"})

    def example(self) -> Mapping[str, Any]:
        """See the seam."""
        return {"prompt": "import math\n", "test": "def check(add):\n    assert add(1, 2) == 3\n", "entry_point": "add"}

    def read(self, reference: Mapping[str, Any]) -> CallTests:
        """See the seam."""
        test = compiles(text_of(reference, "test"), "'test'")
        if "def check(" not in test:
            raise Unusable("'test' defines no function check")
        return CallTests(
            helpers=(compiles(text_of(reference, "prompt"), "'prompt'"),),
            setup=(test,),
            units=("check(candidate)",),
            target=identifier(reference, "entry_point"),
            alias="candidate",
        )
