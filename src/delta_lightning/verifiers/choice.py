"""Multiple choice: GPQA, MMLU-Pro and their like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.extraction.excerpts import WholeText, found_in
from delta_lightning.verifiers.extraction.extraction import Extraction
from delta_lightning.verifiers.extraction.letters import LETTERS, choice_letter
from delta_lightning.verifiers.say import broken, correct, incorrect, no_answer


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Verifier):
    r"""1 where the letter that the completion gives as its answer is the reference's, else 0. Options are A to J.

    The reference is a letter (`C`, `(C)`), an index (2; also as text) or, with `options`, the text of one option. A text that
    could be read in two ways (the option "B" at place A, the option "2" among four) is refused at load.

    The letter of a completion is read strictly: the last balanced box, else the last "the answer is (C)", else a last line
    that is nothing but a letter, or a completion that is nothing but one option. No letter inside a word ever counts; two
    letters, or "is not C", are NO_ANSWER.

    Statuses: CORRECT; INCORRECT; NO_ANSWER where no letter is given, or not one alone; ERROR where the reference cannot be
    used.

    Args:
        extraction: the part of the completion in which the letter is looked for, for example `AfterThinking`.
        field: key of the reference that holds the right option.
        options: key of the reference that holds the texts of all options, a list; None if the data has none.
        first_index: index of option A, where the reference is an index.
    """

    extraction: Extraction = WholeText()  # noqa: RUF009 -- immutable
    field: str = "answer"
    options: str | None = None
    first_index: int = 0

    def __post_init__(self) -> None:
        require(bool(self.field), "MultipleChoice.field", wanted="a key of the reference", got=self.field, remedy="Name it.")
        require(self.options is None or self.options not in ("", self.field), "MultipleChoice.options",
                wanted="another key of the reference", got=self.options, remedy="Or leave it out.")  # fmt: skip

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        wanted, reason = self._wanted(prompt.reference)
        if wanted is None:
            return broken(reason)
        text = found_in(completion.text, self.extraction)
        letter = choice_letter(text) if text is not None else None
        if letter is None:
            return no_answer("no letter, or more than one, is given as the answer")
        return correct() if letter == wanted else incorrect(f"{letter} is not {wanted}")

    def reference_fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({self.field} if self.options is None else {self.field, self.options})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """See the seam: an answer that names no option, or two; options that are not 2 to 10 different texts."""
        wanted, reason = self._wanted(reference)
        return reason if wanted is None else None

    def examples(self) -> tuple[Example, ...]:
        """For the laws."""
        reference = {self.field: "C"} | ({} if self.options is None else {self.options: ["red", "green", "blue", "white"]})
        text = "Because it is a colour.\nThe answer is ({}).".format
        if found_in(text("C"), self.extraction) != text("C"):
            return (Example(reference=reference, text="", status=Status.NO_ANSWER),)
        return (
            Example(reference=reference, text=text("C"), status=Status.CORRECT),
            Example(reference=reference, text=text("B"), status=Status.INCORRECT),
            Example(reference=reference, text="A cat has a BIG house", status=Status.NO_ANSWER),
        )

    def _wanted(self, reference: Mapping[str, Any]) -> tuple[str | None, str]:
        """The right letter, or None and why there is none."""
        texts: list[str] = []
        if self.options is not None:
            given = reference.get(self.options)
            if not isinstance(given, list | tuple) or not all(isinstance(text, str) and text.strip() for text in given):
                return None, f"{self.options!r} must be a list of texts"
            texts = [" ".join(text.split()) for text in given]
            if not 2 <= len(set(texts)) == len(texts) <= len(LETTERS):
                return None, f"{self.options!r} must be 2 to {len(LETTERS)} different texts, not {len(texts)}"
        value = reference.get(self.field)
        if isinstance(value, bool) or not isinstance(value, str | int):
            return None, f"{self.field!r} must be a letter, an index or the text of an option, not {type(value).__name__}"
        readings = self._readings(value, texts)
        if len(readings) == 1:
            return readings.pop(), ""
        named = f"{len(texts)} options" if texts else f"A to {LETTERS[-1]}"
        how = "none" if not readings else f"several ({', '.join(sorted(readings))})"
        return None, f"{self.field!r} is {value!r}, which names {how} of {named}"

    def _readings(self, value: str | int, texts: list[str]) -> set[str]:
        """Every letter that the value may stand for."""
        letters = LETTERS[: len(texts) or len(LETTERS)]
        text = " ".join(str(value).split())
        readings = {letters[place] for place, option in enumerate(texts) if option == text and isinstance(value, str)}
        bare = text.strip("().").upper()
        if len(bare) == 1 and bare in letters:
            readings.add(bare)
        if isinstance(value, int) or (text.isascii() and text.isdigit() and len(text) < 4):
            place = int(text) - self.first_index
            if 0 <= place < len(letters):
                readings.add(letters[place])
        return readings
