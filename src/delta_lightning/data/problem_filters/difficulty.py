"""Problems by a number that the data give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan

from delta_lightning.data.problem_filters.column_value import column_value
from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import FilterContext, Keep, ProblemFilter
from delta_lightning.types import Problem


@dataclass(frozen=True, kw_only=True)
class Difficulty(ProblemFilter):
    """Keeps problems with `low` <= number <= `high`: a difficulty, or the share of answers that some model got right.

    The number is a field of `Table.columns`, for example `columns: {question: ..., answer: ..., difficulty: difficulty}`.

    Args:
        column: name of the field. low: least number that is kept. high: largest.
        source: only problems of this data set; those of others are kept. None: of all.
    """

    column: str = "difficulty"
    low: float = -inf
    high: float = inf
    source: str | None = None

    def __post_init__(self) -> None:
        require(self.low <= self.high, "Difficulty", wanted="low <= high", got=f"{self.low:g} and {self.high:g}",
                remedy="Exchange them.")  # fmt: skip

    def open(self, context: FilterContext) -> Keep:
        """Compares numbers. Raises `ConfigError`: no such field, or something else than a number in it."""

        def keep(problems: Sequence[Problem]) -> list[bool]:
            return [
                self.source not in (None, problem.source) or self.low <= self._number(problem) <= self.high
                for problem in problems
            ]

        return keep

    def _number(self, problem: Problem) -> float:
        value = column_value(problem, self.column, "Difficulty.column")
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(value, bool) or isnan(number):
            raise ConfigError(
                f"{self.column!r} of problem {problem.id}", wanted="a number", got=repr(value),
                remedy="Mend the row, or name another column in Difficulty.column.",
            )  # fmt: skip
        return number
