"""When two answers are the same: the seam."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


class TooHardError(Exception):
    """The comparison was not tried: it would not come to an end in any useful time. Says nothing about the answer."""


class OddFormError(Exception):
    """The library that compares cannot deal with this answer, though it can with the reference: the answer is wrong."""


@dataclass(frozen=True, kw_only=True)
class Comparison(ABC):
    """Compares an answer with the reference, both as written, without their boxes. Nothing in it evaluates text as code."""

    @abstractmethod
    def same(self, gold: str, answer: str) -> bool | None:
        """Whether `answer` equals `gold`; None where the reference cannot be used. Not symmetric.

        Raises:
            TooHardError: where the answer's form is known to explode (towers of powers, huge factorials, deep nesting).
            OddFormError: where the comparison works for the reference but not for this answer; the text says how it failed.
            Exception: any other is a failure of the comparison, never of the answer.
        """

    @abstractmethod
    def usable(self, text: str) -> bool:
        """Whether the text has a meaning that another can be compared with. Plain numbers and words need no parser."""

    def warm_up(self) -> None:  # noqa: B027 -- a hook, not a duty
        """Import and build what is heavy, so that no answer's time limit pays for it."""
