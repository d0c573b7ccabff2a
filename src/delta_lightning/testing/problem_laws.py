"""The laws of problem filters."""

from __future__ import annotations

from collections.abc import Sequence

from delta_lightning.interfaces import FilterContext, ProblemFilter
from delta_lightning.types import Problem

WORDS = ("find", "the sum of", "all primes", "47+385=", "below", r"$x^2 \leq 9$", "1+1=", "")


def problems() -> list[Problem]:
    """Some with the same question, of two data sets, with the columns `difficulty` and `topic`."""
    return [
        Problem(
            id=str(number), question=f"{WORDS[number % 8]} {WORDS[(number // 3) % 7]}", source="ab"[number % 2],
            reference={"answer": "1", "difficulty": number % 5, "topic": ("algebra", "geometry")[number // 2 % 2]},
        )
        for number in range(24)
    ]  # fmt: skip


def check_problem_filter(part: ProblemFilter) -> None:
    """One bool each, the same again, idempotent, and by itself where it says so. Raises `AssertionError`."""
    part.check()
    assert part.splits() and part.splits() <= {"train", "held_out"}, "splits(): not among train and held_out"
    world = problems()
    answers = _keep(part, world)
    assert len(answers) == len(world) and all(isinstance(answer, bool) for answer in answers), "not one bool for each problem"
    assert _keep(part, world) == answers, "another answer for the same problems"
    kept = [problem for problem, answer in zip(world, answers, strict=True) if answer]
    assert all(_keep(part, kept)), "of what is kept, not everything is kept again"
    if part.row_local():
        keep = part.open(_context())
        alone = [keep([problem])[0] for problem in world]
        assert alone == answers, "row_local(), but the answer depends on other problems"
        backwards = _keep(part, world[::-1])
        assert backwards[::-1] == answers, "row_local(), but the answer depends on the order"


def _keep(part: ProblemFilter, world: Sequence[Problem]) -> list[bool]:
    return part.open(_context())(world)


def _context() -> FilterContext:
    return FilterContext(count_tokens=lambda given: [len(problem.question) for problem in given])
