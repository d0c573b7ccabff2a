r"""Plain places of an answer: the whole text, a line, what follows a marker, a fenced block, a match of one's own.

Each works in every verifier that takes an `extraction`, mathematics included. Linear time on any text, but for `LastMatch`,
whose pattern is the user's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from delta_lightning.errors import ConfigError, require
from delta_lightning.verifiers.extraction.boxed import after_thinking
from delta_lightning.verifiers.extraction.extraction import Extraction

_EMPHASIS = "*_` \t"  # Markdown around an answer
_FENCE = re.compile(r"^[ ]{0,3}(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^\n`]*+$", re.MULTILINE)  # nothing is tried twice


@dataclass(frozen=True, kw_only=True)
class WholeText(Extraction):
    """All of the completion, spaces at the ends removed."""

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        return text.strip() or None


@dataclass(frozen=True, kw_only=True)
class LastLine(Extraction):
    """The last line that holds more than spaces."""

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        return text.rstrip().rpartition("\n")[2].strip() or None


@dataclass(frozen=True, kw_only=True)
class AfterMarker(Extraction):
    """The rest of the line behind the last occurrence of a marker; the next line that is not empty if there is no rest.

    Upper and lower case of the marker are the same; Markdown emphasis around the answer (`**Answer:** 42`) is removed.

    Args:
        marker: not empty. GSM8K's is "####".
    """

    marker: str = "Answer:"

    def __post_init__(self) -> None:
        require(
            bool(self.marker.strip()), "extraction.marker", wanted="some text", got=self.marker, remedy='"Answer:" is common.'
        )

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        ends = [found.end() for found in re.finditer(re.escape(self.marker), text, re.IGNORECASE)]
        if not ends:
            return None
        rest = text[ends[-1] :].strip(_EMPHASIS + "\r\n").partition("\n")[0]
        return rest.strip(_EMPHASIS + "\r") or None


@dataclass(frozen=True, kw_only=True)
class LastFence(Extraction):
    """The content of the last closed Markdown fence (three or more backquotes or tildes).

    Args:
        languages: words behind the opening fence that count, in lower case, "" for a fence without one; empty for any.
    """

    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "languages", tuple(self.languages))  # YAML gives a list

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        found: str | None = None
        opening: re.Match[str] | None = None
        for fence in _FENCE.finditer(text):
            if opening is None:
                opening = fence
            elif fence[1].startswith(opening[1]) and not fence[2]:  # at least as long, and without a language
                if not self.languages or opening[2].lower() in self.languages:
                    found = text[opening.end() : fence.start()].strip()
                opening = None
        return found


@dataclass(frozen=True, kw_only=True)
class FenceOrText(Extraction):
    """The last closed Markdown fence, in any language; all of the text where there is none."""

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        fenced = LastFence().answer(text, usable)
        return (text.strip() or None) if fenced is None else fenced


@dataclass(frozen=True, kw_only=True)
class LastMatch(Extraction):
    r"""The group of the last match of a regular expression. ^ and $ match at lines.

    A pattern that backtracks catastrophically cannot hang a run: the pool kills the worker, and the verdict is TIMEOUT.

    Args:
        pattern: with exactly one group, for example '<answer>(.*?)</answer>'; (?s) lets a dot match line ends.
    """

    pattern: str = "<answer>(.*?)</answer>"

    def __post_init__(self) -> None:
        compiled = compiled_pattern(self.pattern, "extraction.pattern")
        require(compiled.groups == 1, "extraction.pattern", wanted="a regular expression with one group", got=self.pattern,
                remedy="Put ( ) around the answer and (?: ) around everything else.")  # fmt: skip

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        found = [match[1] for match in re.finditer(self.pattern, text, re.MULTILINE)]
        return found[-1].strip() if found and found[-1] is not None else None


@dataclass(frozen=True, kw_only=True)
class AfterThinking(Extraction):
    """Another place, looked for only behind the last `</think>`; a text without that tag has no answer.

    Args:
        then: where to look in the rest.
    """

    then: Extraction = WholeText()

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        rest = after_thinking(text)
        return None if rest is None else self.then.answer(rest, usable)


@dataclass(frozen=True, kw_only=True)
class FirstPlace(Extraction):
    """The answer of the first place that has one.

    Args:
        places: in the order in which they are asked; at least one.
    """

    places: tuple[Extraction, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", tuple(self.places))  # YAML gives a list
        require(bool(self.places), "extraction.places", wanted="at least one", got=[], remedy="Name the places to look in.")

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam."""
        answers = (place.answer(text, usable) for place in self.places)
        return next((answer for answer in answers if answer), None)


def compiled_pattern(pattern: str, setting: str) -> re.Pattern[str]:
    """The regular expression. Raises `ConfigError` where it is none."""
    try:
        return re.compile(pattern, re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(setting, wanted="a regular expression", got=f"{pattern!r}: {error}",
                          remedy="Mend the expression; in YAML put it in single quotes.") from error  # fmt: skip


def found_in(text: str, extraction: Extraction) -> str | None:
    """The answer that `extraction` finds in a completion, where nothing has to be chosen; None without one."""
    answer = extraction.answer(text, lambda candidate: True)
    return answer if answer is not None and answer.strip() else None
