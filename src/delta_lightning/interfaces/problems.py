"""The seam that leaves problems out before anything is sampled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from delta_lightning.types import Problem

Keep = Callable[[Sequence[Problem]], list[bool]]


@dataclass(frozen=True, kw_only=True)
class FilterContext:
    """What a problem filter may ask for.

    Attributes:
        count_tokens: lengths of the problems' prompts, tokens.
        report: (file name, text) -> the text is added to that file of the run folder, once.
        tick: called as (phase, done, total) while work goes on.
        whole: True if all problems are judged in one call; False if they are judged as they are drawn.
    """

    count_tokens: Callable[[Sequence[Problem]], list[int]]
    report: Callable[[str, str], None] = lambda name, text: None
    tick: Callable[[str, int, int], None] = lambda phase, done, total: None
    whole: bool = True


class ProblemFilter(ABC):
    """Leaves problems of the data out before anything is sampled (`RolloutFilter` judges what was sampled).

    Laws: one bool for each problem; the same problems give the same answer; of what is kept, everything is kept again; where
    `row_local()` is true, the answer for a problem depends on no other problem.
    """

    def check(self) -> None:  # noqa: B027 -- a hook, not a duty
        """Refuse what cannot work, before anything heavy loads. Raises `ConfigError`."""

    @abstractmethod
    def open(self, context: FilterContext) -> Keep:
        """Problems -> whether to keep each. Raises `ConfigError` for problems that it cannot judge."""

    def row_local(self) -> bool:
        """False where problems are compared with each other, so that all of them must be at hand."""
        return True

    def splits(self) -> frozenset[str]:
        """Where it works: "train", and "held_out" if what it leaves out could not be sampled at all."""
        return frozenset({"train"})
