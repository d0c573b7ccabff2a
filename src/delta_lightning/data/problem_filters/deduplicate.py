"""Each question once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from delta_lightning.data.words import words
from delta_lightning.functional.random import stable_hash
from delta_lightning.interfaces import FilterContext, Keep, ProblemFilter
from delta_lightning.types import Problem


@dataclass(frozen=True, kw_only=True)
class Deduplicate(ProblemFilter):
    """Keeps the first of the problems whose questions have the same words, whatever their case, spacing and punctuation.

    Numbers and operators are words, so that x+1 and x-1 are two questions. Problems of different data sets are compared too.

    Args:
        exact: compare the questions as they stand, character by character.
    """

    exact: bool = False

    def open(self, context: FilterContext) -> Keep:
        """Compares 63-bit hashes of the questions: among 10^7 of them, any two alike by chance with probability 5e-6."""

        def keep(problems: Sequence[Problem]) -> list[bool]:
            seen: set[int] = set()
            kept: list[bool] = []
            for done, problem in enumerate(problems, 1):
                key = stable_hash(problem.question if self.exact else " ".join(words(problem.question)))
                kept.append(key not in seen)
                seen.add(key)
                context.tick("comparing questions", done, len(problems))
            return kept

        return keep

    def row_local(self) -> bool:
        """False: problems are compared with each other."""
        return False
