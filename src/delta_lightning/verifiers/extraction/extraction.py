"""Where an answer may stand in a text: the seam, and the default, the last box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from delta_lightning.verifiers.extraction.boxed import last_boxed


@dataclass(frozen=True, kw_only=True)
class Extraction(ABC):
    """Finds the answer in a completion, and in the reference. Strings in, strings out; any text gives a result."""

    @abstractmethod
    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """The answer in a completion, as written, or None where there is none.

        Args:
            text: the completion, without its thinking where that is cut.
            usable: whether a candidate can be compared; an extraction that has several to choose from takes the first usable
                one. It may parse, so it is asked only where there is a choice.
        """

    def reference(self, text: str, usable: Callable[[str], bool]) -> str:
        """The reference answer, as written: out of its last box if it has one, else all of the text."""
        boxed = last_boxed(text)
        return (text if boxed is None else boxed).strip()


@dataclass(frozen=True, kw_only=True)
class LastBox(Extraction):
    r"""The last `\boxed{...}` or `\fbox{...}` whose braces balance, and nothing else: the strict reward of training.

    A box that is never closed is passed over; of nested boxes the inner one counts. A text without a box has no answer,
    whatever else it says.
    """

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        return last_boxed(text)
