"""Answers that must be a given text, or one of several."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.extraction.excerpts import LastLine, found_in
from delta_lightning.verifiers.extraction.extraction import Extraction
from delta_lightning.verifiers.say import broken, correct, incorrect, no_answer, quoted


@dataclass(frozen=True, kw_only=True)
class ExactMatch(Verifier):
    """1 where the answer is the reference, or one of the references, after the same normalisation of both; else 0.

    The reference is a text, an integer, or a list of these, any of which is right. Normalisation is Unicode's NFC, always, and
    what the fields say, in this order: white space, `strip`, case.

    Statuses: CORRECT; INCORRECT; NO_ANSWER where `extraction` finds nothing, or normalisation leaves nothing; ERROR where
    the reference cannot be used.

    Args:
        extraction: where in the completion the answer stands: `LastLine`, `WholeText`, `AfterMarker`, `LastBox`, ...
        case: "fold" makes upper and lower case the same, "keep" does not.
        whitespace: "collapse" makes every run of it one space and trims, "trim" only trims, "remove" takes all of it away,
            "keep" leaves it.
        strip: characters removed from both ends, for example ".!"; none by default.
        field: key of the reference that holds the accepted answers.
    """

    extraction: Extraction = LastLine()  # noqa: RUF009 -- immutable
    case: Literal["fold", "keep"] = "fold"
    whitespace: Literal["collapse", "trim", "remove", "keep"] = "collapse"
    strip: str = ""
    field: str = "answer"

    def __post_init__(self) -> None:
        for name, words in (("case", ("fold", "keep")), ("whitespace", ("collapse", "trim", "remove", "keep"))):
            value = getattr(self, name)
            require(value in words, f"ExactMatch.{name}", wanted=" or ".join(words), got=value, remedy="Choose one of them.")
        require(
            bool(self.field), "ExactMatch.field", wanted="a key of the reference", got=self.field, remedy="Or leave it out."
        )

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        if self.refuse_reference(prompt.reference) is not None:
            return broken(f"the prompt has no usable reference {self.field!r}")
        found = found_in(completion.text, self.extraction)
        answer = None if found is None else self.normal(found)
        if not answer:
            return no_answer(f"{type(self.extraction).__name__} finds no answer")
        wanted = _accepted(prompt.reference[self.field])
        if any(answer == self.normal(text) for text in wanted or ()):
            return correct()
        return incorrect(f"{quoted(answer)} is not {quoted(wanted)}")

    def normal(self, text: str) -> str:
        """The text as it is compared."""
        text = unicodedata.normalize("NFC", text)
        if self.whitespace in ("collapse", "remove"):
            text = (" " if self.whitespace == "collapse" else "").join(text.split())
        elif self.whitespace == "trim":
            text = text.strip()
        text = text.strip(self.strip) if self.strip else text
        return text.casefold() if self.case == "fold" else text

    def reference_fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({self.field})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """See the seam: an answer that is neither text nor integer, or empty after normalisation."""
        accepted = _accepted(reference.get(self.field))
        if not accepted:
            return f"{self.field!r} must be a text, an integer or a list of them, not {quoted(reference.get(self.field))}"
        empty = [text for text in accepted if not self.normal(text)]
        return f"the accepted answer {empty[0]!r} is empty after normalisation" if empty else None

    def examples(self) -> tuple[Example, ...]:
        """For the laws; more of them where a bare word is an answer."""
        reference = {self.field: ["Paris", 75]}
        empty = Example(reference=reference, text="", status=Status.NO_ANSWER)
        if found_in("Paris", self.extraction) != "Paris":
            return (empty,)
        right = Example(reference=reference, text="Paris", status=Status.CORRECT)
        return right, Example(reference=reference, text="Paris, Texas", status=Status.INCORRECT), empty


def _accepted(value: object) -> list[str] | None:
    """The accepted answers as texts, or None where the reference is of another kind."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(each, str | int) and not isinstance(each, bool) for each in values):
        return None
    return [str(each) for each in values]
