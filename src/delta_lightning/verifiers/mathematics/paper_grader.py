r"""The reward of DelTA's released code, without what makes it unsafe."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from delta_lightning.verifiers.mathematics.comparison import Comparison, TooHardError
from delta_lightning.verifiers.mathematics.explosive import explosive
from delta_lightning.verifiers.mathematics.latex import parsed_as_published
from delta_lightning.verifiers.mathematics.paper_strings import (
    elements,
    integer,
    mathd_form,
    plain_form,
    reference_form,
    repetitive,
)
from delta_lightning.verifiers.mathematics.symbolic import equal_by_simplification, warm_up

_FRACTION = re.compile(r"^-?[0-9]+.?/0*[1-9][0-9]*.?$")
_NOT_FOR_SYMPY = re.compile(r"\^[{(]|\^[0-9]+\^|\^[0-9][0-9]+")


@dataclass(frozen=True, kw_only=True)
class PaperGrader(Comparison):
    r"""Equal by any of three graders, as in the code that was released with DelTA (arXiv 2605.21467): for comparisons with it.

    The reference is first put into that code's own form (`strip_string`). Then, in this order: the string of Hendrycks'
    MATH; the plain form of PRM800K's grader, entry by entry, with sympy's simplification; math-verify on `$reference$` and
    `$answer$` (box first, its defaults otherwise). No guard rails: 42 is 42 % here, and 5 cm is 5 m.

    It differs on purpose in these points, and docs/mathematics.md has the pairs on which the verdicts differ:

    - Nothing is evaluated. The released code hands the model's text to sympy's `parse_expr`, which is `eval`, in the second
      grader and, through plain expressions, in the third. Here both parse with math-verify's LaTeX grammar.
    - math-verify works in every process. In the released code its time limit is a signal, which fails in the worker
      threads that training uses, so that there the third grader never says yes.
    - An answer that would explode is `TooHardError`, and the pool kills what exceeds its limit; there it is wrong after 1 s.

    Put it together with `PaperBox`: configs/preset/paper_grader.yaml.
    """

    def same(self, gold: str, answer: str) -> bool | None:
        """See the seam."""
        gold = reference_form(gold)
        if not gold:
            return None
        if mathd_form(gold) == mathd_form(answer):
            return True
        wanted, got = plain_form(gold), plain_form(answer)
        if wanted == got:
            return True
        reason = explosive(answer) or explosive(gold)
        if reason:
            raise TooHardError(reason)
        return _same_elements(wanted, got) or _same_in_math_verify(gold, answer)

    def usable(self, text: str) -> bool:
        """See the seam. Any text that is not empty in the released code's form."""
        return bool(reference_form(text))

    def warm_up(self) -> None:
        """Import math-verify and compare once."""
        warm_up()


def _same_elements(wanted: str, got: str) -> bool:
    """PRM800K's comparison of two plain forms, entry by entry."""
    if not got:
        return False
    wanted_entries, got_entries = elements(wanted), elements(got)
    if len(wanted_entries) > 1 and (wanted[0] != got[0] or wanted[-1] != got[-1]):
        return False
    pairs = list(zip(wanted_entries, got_entries, strict=False))
    return len(wanted_entries) == len(got_entries) and all(_same_entry(first, second) for first, second in pairs)


def _same_entry(wanted: str, got: str) -> bool:
    if _FRACTION.search(wanted) and _FRACTION.search(got):
        return wanted == got  # a fraction must be reduced
    if (integer(wanted) is None) != (integer(got) is None):
        return False  # an integer must be written as one
    both = f"({wanted})-({got})"
    letters = {sign for sign in both.replace("sqrt", "").replace("frac", "") if sign.isalpha()}
    if len(letters) > 2 or _NOT_FOR_SYMPY.search(both):
        return False
    return equal_by_simplification(_to_latex(wanted), _to_latex(got))


def _to_latex(plain: str) -> str:
    """A plain expression in the spelling that the LaTeX grammar reads."""
    text = plain.replace("**", "^").replace("*", "\\cdot ")
    text = re.sub(r"(?<![a-z])pi(?![a-z])", r"\\pi ", re.sub(r"(?<![a-z])inf(?![a-z])", r"\\infty ", text))
    while (start := text.find("sqrt(")) >= 0 and not text.startswith("\\", max(0, start - 1)):
        depth, end = 0, -1
        for place in range(start + 4, len(text)):
            depth += {"(": 1, ")": -1}.get(text[place], 0)
            if depth == 0:
                end = place
                break
        if end < 0:
            break
        text = f"{text[:start]}\\sqrt{{{text[start + 5 : end]}}}{text[end + 1 :]}"
    return text


def _same_in_math_verify(gold: str, answer: str) -> bool:
    """math-verify's verdict with the released code's settings, LaTeX only."""
    if repetitive(gold) or repetitive(answer):
        return False
    found = [parsed_as_published(_formula(text)) for text in (gold, answer)]
    if any(item is None for item in found):
        return False
    from math_verify import verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
    return bool(verify(*found, timeout_seconds=None))


def _formula(text: str) -> str:
    """What stands between the last two dollar signs, or all of the text."""
    inside = re.findall(r"\$([^$]+)\$", text)
    return inside[-1] if inside else text
