"""Problems by the value of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import FilterContext, Keep, ProblemFilter
from delta_lightning.types import Problem


@dataclass(frozen=True, kw_only=True)
class ColumnValue(ProblemFilter):
    """Keeps problems whose column has one of the values, compared as text; or leaves those out.

    The column is a field of `Table.columns`, for example `columns: {question: ..., answer: ..., topic: topic}`.

    Args:
        column: name of the field. keep: values that are kept; empty: all but those in `drop`. drop: values that are left out.
        source: only problems of this data set; those of others are kept. None: of all.
    """

    column: str
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.keep) != bool(self.drop), "ColumnValue", wanted="values in either keep or drop",
                got=f"keep {list(self.keep)} and drop {list(self.drop)}", remedy="Name values in one of them.")  # fmt: skip

    def open(self, context: FilterContext) -> Keep:
        """Compares texts. Raises `ConfigError` where there is no such field."""

        def keep(problems: Sequence[Problem]) -> list[bool]:
            return [self.source not in (None, problem.source) or self._fits(problem) for problem in problems]

        return keep

    def _fits(self, problem: Problem) -> bool:
        value = str(column_value(problem, self.column, "ColumnValue.column"))
        return value in self.keep if self.keep else value not in self.drop


def column_value(problem: Problem, column: str, setting: str) -> Any:
    """The value of a field. Raises `ConfigError` where there is none, with those that there are."""
    if column not in problem.reference:
        raise ConfigError(
            setting, wanted=f"a field of problem {problem.id}: one of {', '.join(map(repr, problem.reference)) or 'none'}",
            got=repr(column), remedy=f"Map it to a column of the data, for example columns: {{{column}: {column}}}.",
        )  # fmt: skip
    return problem.reference[column]
