"""The laws of problem filters can fail: each test plants one with a classic defect."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from delta_lightning.interfaces import FilterContext, Keep, ProblemFilter
from delta_lightning.testing.laws import check_problem_filter
from delta_lightning.types import Problem


class EverySecond(ProblemFilter):
    """Not idempotent, and the answer depends on the company."""

    def open(self, context: FilterContext) -> Keep:
        return lambda problems: [place % 2 == 0 for place in range(len(problems))]


class FirstOfSource(EverySecond):
    """Idempotent, but claims to judge each problem by itself."""

    def open(self, context: FilterContext) -> Keep:
        def keep(problems: Sequence[Problem]) -> list[bool]:
            seen: set[str] = set()
            return [not (p.source in seen or seen.add(p.source)) for p in problems]  # type: ignore[func-returns-value]

        return keep


class Forgets(EverySecond):
    def open(self, context: FilterContext) -> Keep:
        return lambda problems: [True]


class Remembers(EverySecond):
    """State that outlives `open`."""

    calls = 0

    def open(self, context: FilterContext) -> Keep:
        type(self).calls += 1
        return lambda problems: [type(self).calls % 2 == 0] * len(problems)


@pytest.mark.parametrize(
    ("part", "law"),
    [(EverySecond(), "kept again"), (FirstOfSource(), "row_local"), (Forgets(), "one bool"), (Remembers(), "another answer")],
)
def test_defective_filter_is_caught(part: ProblemFilter, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_problem_filter(part)
