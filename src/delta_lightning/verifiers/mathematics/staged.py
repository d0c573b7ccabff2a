r"""The default comparison: cheap and exact stages first, math-verify behind guard rails last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from delta_lightning.errors import require
from delta_lightning.verifiers.mathematics.clock import is_time, same_time
from delta_lightning.verifiers.mathematics.comparison import Comparison, TooHardError
from delta_lightning.verifiers.mathematics.explosive import beyond, expands, explosive
from delta_lightning.verifiers.mathematics.numerals import numeral, same_number
from delta_lightning.verifiers.mathematics.residues import is_residue, same_residue
from delta_lightning.verifiers.mathematics.symbolic import Rules, parses, same_form, same_meaning, warm_up
from delta_lightning.verifiers.mathematics.tidy import squeezed, tidy, unwrapped
from delta_lightning.verifiers.mathematics.words import is_words, same_words, words


@dataclass(frozen=True, kw_only=True)
class Staged(Comparison):
    r"""In this order: the same string; the same number; the same words; the same mathematical object. The first that decides.

    1. String: after one spelling for spaces, fractions, delimiters, signs, degrees and relations.
    2. Number: integers, decimals, fractions, mixed numbers, powers of ten, as exact rationals, with units and percent signs.
    3. Words: `Yes`, `\text{ellipse}`, `(C)`, `A and C`: as strings. To an algebra system `Yes` is Y * e * s, which equals
       `Yse`. With them times (`3:30` would be one tenth) and residues (`3 \pmod 7`).
    4. Object: math-verify (LaTeX grammar, sympy) on the two answers alone, with rules before and after it for its known false
       positives. It is imported here only, at the first answer that needs it.

    The reference's form rules, so this is not symmetric: a unit, a percent sign or an equation that it has is known to be
    wanted. Units may be left out or added, but two different ones are wrong; so is a base or a percent sign that the
    reference lacks, and an equation whose left side is more than a name (`41 = 42` is not 42). Letters are names: `x^2` is
    not `X^2`. A decimal equals a number that no decimal writes out (1/3, the square root of 2) when it agrees to `digits`
    places; everything else is exact: 42.0000001 is not 42.

    Forms that are known to explode (towers of powers, factorials of millions, thousands of brackets) are not handed to
    math-verify. Where both are numbers and the answer's size alone decides, it is wrong; otherwise `TooHardError` is raised.

    Args:
        digits: decimal places to which a rounded decimal must agree with a number that no decimal writes out; 1 to 12.
        percent: "as_reference": a percent sign may be left out (`50\%` is 50 or 0.5) but not added; "either": it may be added
            too (42 accepts `42\%`, 0.42 accepts `42\%`); "exact": both have it or neither.
        variables: "named": x + 1 is not y + 1; "interchangeable": it is, and an unordered set is an ordered tuple
            (math-verify's `strict=False`).
        relations: "any_form": an interval or set may be written as an inequality, and the other way round; "reference_set":
            the answer may be a set where the reference is an inequality, but not the other way round (math-verify's default).
        chains: what `a = b = c` claims where the reference is no equation: "every_link": all of them must be right, but for a
            name in front; "last_link": only the end counts (math-verify's default), so `41 = 42` is 42.
    """

    digits: int = 6
    percent: Literal["as_reference", "either", "exact"] = "as_reference"
    variables: Literal["named", "interchangeable"] = "named"
    relations: Literal["any_form", "reference_set"] = "any_form"
    chains: Literal["every_link", "last_link"] = "every_link"

    def __post_init__(self) -> None:
        require(
            1 <= self.digits <= 12, "digits", wanted="1 to 12 places", got=self.digits, remedy="6 is what math-verify uses."
        )

    def same(self, gold: str, answer: str) -> bool | None:
        """See the seam."""
        wanted, got = tidy(gold), tidy(answer)
        if not wanted:
            return None
        wanted_number, got_number = numeral(wanted), numeral(got)
        if _looks(wanted) == _looks(got):  # but `1, 234` is a list of two
            return got_number is not None or wanted_number is None or "," not in got
        if wanted_number and got_number:
            return same_number(wanted_number, got_number, digits=self.digits, percent=self.percent)
        if wanted_number and words(got) is not None:
            return False
        for same in (same_words(wanted, got), same_time(wanted, got), same_residue(wanted, got)):
            if same is not None:
                return same
        if wanted_number and beyond(got):
            return False
        reason = explosive(got) or (None if wanted_number else explosive(wanted))
        if reason:
            raise TooHardError(reason)
        if not wanted_number and not parses(wanted):
            return None
        if expands(got) or expands(wanted):
            if same_form(wanted, got):
                return True
            raise TooHardError("a large power of a sum")
        return same_meaning(
            wanted,
            got,
            Rules(
                digits=self.digits,
                percent=self.percent,
                strict=self.variables == "named",
                either_form=self.relations == "any_form",
                every_link=self.chains == "every_link",
            ),
        )

    def usable(self, text: str) -> bool:
        """See the seam."""
        wanted = tidy(text)
        if not wanted:
            return False
        known = numeral(wanted) or is_words(wanted) or is_time(wanted) or is_residue(wanted)
        return bool(known) or (explosive(wanted) is None and parses(wanted))

    def warm_up(self) -> None:
        """Import math-verify and compare once."""
        warm_up()


def _looks(text: str) -> str:
    """What a reader sees: `\\text{June 20}` is `June 20`."""
    return squeezed(unwrapped(text) if "{" in text else text)
