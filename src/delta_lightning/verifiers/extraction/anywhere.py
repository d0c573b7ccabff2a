r"""Answers outside a box: LaTeX in dollars or brackets, plain numbers, choice letters. For evaluation, not for training."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal

from delta_lightning.errors import require
from delta_lightning.verifiers.extraction.extraction import Extraction

Kind = Literal["latex", "expression", "choice"]
_GROUPS = ("first_", "next1_", "next2_", "next3_", "next4_", "next5_")  # LaTeX joined by "and", "or" or a comma


@dataclass(frozen=True, kw_only=True)
class Anywhere(Extraction):
    r"""The place where math-verify would look: boxes first, then "the final answer is ...", then the last formula or number.

    Several boxes close together, or joined by "and" or a comma, are one answer: a list. Of the candidates of equal rank the
    last in the text comes first, and the first that can be compared is the answer.

    A model that may write its answer anywhere may also write several and let the grader choose, so train on `LastBox` and
    use this to evaluate models that were never told to box. Only math-verify's regular expressions are used: they say where
    the answer stands, and the text between is compared by our own stages, never evaluated (math-verify would hand plain
    expressions to sympy's `parse_expr`, which is `eval`).

    Cost: quadratic in the length of some texts (20,000 `\(` in a row take seconds); give the pool a limit.

    Args:
        kinds: what is looked for. "latex": boxes, `$...$`, `$$...$$`, `\(...\)`, `\[...\]`; "expression": numbers and sums
            in plain text, with a decimal comma where it can be nothing else (`1000,99`); "choice": a letter that stands
            alone. At least one.
        letters: the letters of "choice"; at least one.
    """

    kinds: tuple[Kind, ...] = ("latex", "expression")
    letters: str = "ABCDEFGHIJ"

    def __post_init__(self) -> None:
        known = set(self.kinds) <= {"latex", "expression", "choice"}
        require(
            bool(self.kinds) and known,
            "kinds",
            wanted='at least one of "latex", "expression" and "choice"',
            got=self.kinds,
            remedy="Leave it at [latex, expression], or use LastBox for boxes only.",
        )
        require(self.letters.isalpha(), "letters", wanted="letters", got=self.letters, remedy="ABCD are the letters of GPQA.")

    def answer(self, text: str, usable: Callable[[str], bool]) -> str | None:
        """See the seam. Where no candidate can be compared, the first one."""
        first = None
        for candidate in self._candidates(text):
            if usable(candidate):
                return candidate
            first = first or candidate
        return first

    def reference(self, text: str, usable: Callable[[str], bool]) -> str:
        """The reference is read like a completion, so that a whole worked solution may be one; bare text stands for itself."""
        return self.answer(text, usable) or text.strip()

    def _candidates(self, text: str) -> Iterator[str]:
        """Every place that may hold the answer, best first."""
        for _, patterns in groupby(_patterns(self.kinds, self.letters), key=lambda entry: entry[1]):
            matches = [(match, kind) for pattern, _, kind in patterns for match in pattern.finditer(text)]
            matches.sort(key=lambda found: (found[0].end(), -found[0].start()), reverse=True)
            for match, kind in matches:
                candidate = _READERS[kind](match).strip()
                if candidate:
                    yield candidate


@lru_cache(maxsize=8)
def _patterns(kinds: tuple[Kind, ...], letters: str) -> tuple[tuple[re.Pattern[str], int, Kind], ...]:
    """(pattern, rank, kind), best rank first."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig
    from math_verify.parser import get_extraction_regexes

    configs: dict[Kind, Any] = {
        "latex": LatexExtractionConfig(boxed_match_priority=0),
        "expression": ExprExtractionConfig(),
        "choice": StringExtractionConfig(strings=tuple(letters), lowercase=False),
    }
    wanted = [kind for kind in configs if kind in kinds]
    found = get_extraction_regexes([configs[kind] for kind in wanted])
    entries = [(pattern, rank, kind) for kind, (patterns, _) in zip(wanted, found, strict=True) for pattern, rank in patterns]
    return tuple(sorted(entries, key=lambda entry: entry[1]))


def _latex(match: re.Match[str]) -> str:
    """The formulas of one match as a list, out of their boxes."""
    from latex2sympy2_extended.math_normalization import extract_boxed_content

    groups = match.groupdict()
    parts = []
    for prefix in _GROUPS:
        name = next((name for name, text in groups.items() if name.startswith(f"{prefix}latex") and text), None)
        if name is not None:
            mode: Literal["last", "all"] = "last" if name.endswith("Boxed") else "all"
            percent = "\\%" if groups.get(f"{prefix}percent") else ""
            parts.append(extract_boxed_content(groups[name], mode) + percent)
    return ", ".join(parts)


def _expression(match: re.Match[str]) -> str:
    """A number with its separators removed, or a sum as it stands."""
    groups = match.groupdict()
    whole = next((text for name, text in groups.items() if name.startswith("integer") and text), "")
    decimals = next((text for name, text in groups.items() if name.startswith("decimal") and text), "")
    if not whole and not decimals:
        return (groups.get("expr") or "").replace("\n", " ")
    digits = whole.replace(",", "").replace(" ", "") + decimals.replace(",", ".")
    return digits + ("\\%" if groups.get("percent") else "")


def _choice(match: re.Match[str]) -> str:
    return match["string_keys"]


_READERS: dict[Kind, Callable[[re.Match[str]], str]] = {"latex": _latex, "expression": _expression, "choice": _choice}
