"""Completions that must have a form, whatever they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Verdict
from delta_lightning.verifiers.extraction.excerpts import compiled_pattern
from delta_lightning.verifiers.say import correct, incorrect


@dataclass(frozen=True, kw_only=True)
class RegexFormat(Verifier):
    r"""1 where the completion's text matches a regular expression, else 0. It reads no reference.

    Python's `re`, with ^ and $ at lines; `(?s)` at the beginning lets a dot match line ends. A pattern that backtracks
    catastrophically cannot hang a run: the pool kills the worker at its limit, and the verdict is TIMEOUT. Possessive
    quantifiers (`*+`) and atomic groups (`(?>...)`) avoid it.

    Args:
        pattern: the regular expression. The default is a thinking part, then an answer with a box in it.
        match: "full", all of the text must match; "search", some part of it.
        max_chars: longer completions are INCORRECT unread; characters, at least 1.

    Raises:
        ConfigError: a pattern that is none, or a field out of range.
    """

    pattern: str = r"(?s)<think>(?:(?!</think>).)*+</think>(?:(?!\\boxed).)*+\\boxed\{.*\}.*"
    match: Literal["full", "search"] = "full"
    max_chars: int = 200_000

    def __post_init__(self) -> None:
        compiled_pattern(self.pattern, "RegexFormat.pattern")
        require(self.match in ("full", "search"), "RegexFormat.match", wanted="full or search", got=self.match,
                remedy="Choose one of them.")  # fmt: skip
        require(self.max_chars >= 1, "RegexFormat.max_chars", wanted="at least 1 character", got=self.max_chars,
                remedy="Leave it at 200000.")  # fmt: skip

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        text = completion.text
        if len(text) > self.max_chars:
            return incorrect(f"the completion has {len(text)} characters, more than {self.max_chars}")
        pattern = re.compile(self.pattern, re.MULTILINE)  # kept by `re`
        found = pattern.fullmatch(text) if self.match == "full" else pattern.search(text)
        return correct() if found else incorrect(f"the completion does not match {self.pattern[:80]!r}")

    def reference_fields(self) -> frozenset[str]:
        """None."""
        return frozenset()
