"""Numbers, with tolerances."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.extraction.excerpts import found_in
from delta_lightning.verifiers.extraction.extraction import Extraction, LastBox
from delta_lightning.verifiers.say import broken, correct, incorrect, no_answer, quoted

_MAX_CHARS = 200  # of a number with its unit
_MAX_EXPONENT = 400  # of ten: beyond any float, and cheap to write out
_SPACES = ",_ \u00a0\u202f"  # between groups of three digits
_DIGITS = rf"(?:[0-9]{{1,3}}(?:[{_SPACES}][0-9]{{3}})++|[0-9]++)"
_PLAIN = rf"(?:{_DIGITS}(?:\.[0-9]*+)?|\.[0-9]++)"
_POWER = r"10\s*+(?:\^|\*\*)\s*+\{?\s*+(?P<%s>[-+]?[0-9]{1,4})\s*+\}?"
_TIMES = r"\s*+(?:\\times|\\cdot|[*x\u00d7\u00b7])\s*+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\s*+(?P<currency>\\?\$|[\u00a3\u20ac\u00a5])?\s*+
    (?: \\[dt]?frac\{{\s*+(?P<top>{_PLAIN})\s*+\}}\{{\s*+(?P<bottom>{_PLAIN})\s*+\}}
      | {_POWER % "alone"}
      | (?P<number>{_PLAIN})(?:\s*+/\s*+(?P<below>{_PLAIN})|[eE](?P<e>[-+]?[0-9]{{1,4}})|{_TIMES}{_POWER % "ten"})? )
    (?P<tail>[^0-9].*+)?
    """,
    re.VERBOSE | re.DOTALL,
)
_TEXT = re.compile(r"\\(?:text|mathrm|textrm|mbox|operatorname)\s*\{([^{}]*)\}")
_DEGREE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree")
# Begins with a letter, a percent sign or a degree; digits only as exponents (m^2, s^{-1}, cm2).
_UNIT = re.compile(
    r"""(?:[%\u00b0'"]|[^\W\d_]|\\[A-Za-z]++)
    (?: [^\W\d_] | \\[A-Za-z]++ | [\u00b0'"/^*\u00b7\u00b2\u00b3()-] | \{-?[0-9]\} | (?<=[\^-])[0-9]
      | [23](?=[/*\u00b7()]|$) )*""",
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """An exact number with its unit as written, spaces removed; "" without one. Of a percentage, the number before the sign."""

    value: Fraction
    unit: str = ""

    @property
    def percent(self) -> bool:
        """Whether the unit is a percent sign."""
        return self.unit == "%"


@dataclass(frozen=True, kw_only=True)
class NumericVerifier(Verifier):
    r"""1 where the answer is a number within the tolerance of the reference, else 0.

    Right is |answer - reference| <= the largest of `absolute`, `relative` * |reference| and, with `digits`, half a unit of the
    reference's digit of that rank. All of it is exact arithmetic with fractions: 0.1 + 0.2 is 0.3, and a bound is a bound.

    Read are integers, decimals, thousands (`1,234,567`; comma, underscore or space, in groups of three), scientific notation
    (`1.2e-3`, `1.2 \times 10^{-3}`), fractions (`3/4`, `\frac{3}{4}`), a currency sign in front, and a unit behind. Nothing is
    evaluated. A unit is left alone: the answer's must be the reference's as written, spaces aside, or be absent; where the
    reference has none, an answer with one is wrong. Percent: 50% is 0.5; to a reference in percent, 50 and 0.5 are both right.
    `nan` and `inf` are no numbers.

    Statuses: CORRECT; INCORRECT, also for an answer that is no number; NO_ANSWER where `extraction` finds nothing; ERROR
    where the reference cannot be used.

    Args:
        extraction: where in the completion the answer stands.
        absolute: tolerance in the reference's unit; finite and at least 0.
        relative: tolerance as a share of the reference's size; finite and at least 0.
        digits: significant digits of the reference that must agree, rounding included; None for no such tolerance.
        field: key of the reference that holds the number, as a number or a text.
    """

    extraction: Extraction = LastBox()  # noqa: RUF009 -- immutable
    absolute: float = 0.0
    relative: float = 0.0
    digits: int | None = None
    field: str = "answer"

    def __post_init__(self) -> None:
        for name in ("absolute", "relative"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"NumericVerifier.{name}", wanted="finite and at least 0", got=value,
                    remedy="0 is exact.")  # fmt: skip
        require(self.digits is None or 1 <= self.digits <= 100, "NumericVerifier.digits", wanted="1 to 100, or null",
                got=self.digits, remedy="3 suits results of measurement.")  # fmt: skip
        require(bool(self.field), "NumericVerifier.field", wanted="a key of the reference", got=self.field, remedy="Name it.")

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        wanted = quantity(prompt.reference.get(self.field))
        if wanted is None:
            return broken(f"the prompt has no usable reference {self.field!r}")
        text = found_in(completion.text, self.extraction)
        if text is None:
            return no_answer(f"{type(self.extraction).__name__} finds no answer")
        got = quantity(text)
        if got is None:
            return incorrect(f"{quoted(text)} is not a number")
        if self.same(wanted, got):
            return correct()
        return incorrect(f"{quoted(text)} is not within the tolerance of {quoted(prompt.reference[self.field])}")

    def same(self, wanted: Quantity, got: Quantity) -> bool:
        """Whether the answer is right; see the class."""
        if wanted.percent and got.unit in ("", "%"):
            readings = [got.value] if got.percent else [got.value, got.value * 100]
        elif got.percent and not wanted.unit:
            readings = [got.value / 100]
        else:
            readings = [got.value] if got.unit in ("", wanted.unit) else []
        return any(self._close(wanted.value, value) for value in readings)

    def reference_fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({self.field})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """See the seam: anything but a finite number, or a text that is one."""
        value = reference.get(self.field)
        return None if quantity(value) is not None else f"{self.field!r} is not a finite number: {quoted(value)}"

    def examples(self) -> tuple[Example, ...]:
        """For the laws."""
        reference = {self.field: "1,250.5"}
        if found_in(r"\boxed{7}", self.extraction) != "7":
            return (Example(reference=reference, text="", status=Status.NO_ANSWER),)
        return (
            Example(reference=reference, text=r"\boxed{1.2505e3}", status=Status.CORRECT),
            Example(reference=reference, text=r"\boxed{nan}", status=Status.INCORRECT),
            Example(reference=reference, text="1250.5", status=Status.NO_ANSWER),
        )

    def _close(self, wanted: Fraction, got: Fraction) -> bool:
        tolerance = max(Fraction(str(self.absolute)), Fraction(str(self.relative)) * abs(wanted))
        if self.digits is not None and wanted != 0:
            tolerance = max(tolerance, Fraction(10) ** (_magnitude(abs(wanted)) - self.digits + 1) / 2)
        return abs(wanted - got) <= tolerance


def quantity(value: object) -> Quantity | None:
    """The number that a reference or an answer denotes, or None: another type, not finite, too long, or no number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        return Quantity(value=Fraction(Decimal(repr(value)))) if math.isfinite(value) else None
    if isinstance(value, int):
        return Quantity(value=Fraction(value)) if abs(value) < 10**_MAX_EXPONENT else None
    text = value.strip().replace("\u2212", "-")
    if len(text) > 2 and text[0] == text[-1] == "$":  # mathematics, not money
        text = text[1:-1].strip()
    match = _NUMBER.fullmatch(text) if len(text) <= _MAX_CHARS else None
    number = None if match is None else _value(match)
    if match is None or number is None:
        return None
    unit = _unit(match["tail"] or "")
    if match["currency"]:
        if unit:
            return None
        unit = match["currency"].removeprefix("\\")
    return None if unit is None else Quantity(value=-number if match["sign"] == "-" else number, unit=unit)


def _value(match: re.Match[str]) -> Fraction | None:
    if match["alone"]:
        return _power(match["alone"])
    top, below = _plain(match["top"] or match["number"]), match["bottom"] or match["below"]
    bottom = Fraction(1) if below is None else _plain(below)
    power = _power(match["e"] or match["ten"] or "0")
    return None if top is None or not bottom or power is None else top / bottom * power


def _power(exponent: str) -> Fraction | None:
    return Fraction(10) ** int(exponent) if abs(int(exponent)) <= _MAX_EXPONENT else None


def _plain(digits: str) -> Fraction | None:
    """The number, or None where two kinds of separator are mixed."""
    separators = {character for character in digits if character in _SPACES}
    bare = "".join(character for character in digits if character not in _SPACES)
    return Fraction("0" + bare.removesuffix(".")) if len(separators) <= 1 else None


def _unit(tail: str) -> str | None:
    """The unit behind a number, or None where what stands there cannot be one: another number, a sum, a bracket."""
    if re.search(r"\s[0-9]", tail):
        return None
    bare = re.sub(r"\s+|\\[,;: ]", "", _TEXT.sub(r"\1", _DEGREE.sub("\u00b0", tail))).removesuffix(".").replace("\\%", "%")
    bare = "%" if bare.lower() == "percent" else bare
    return bare if not bare or _UNIT.fullmatch(bare) else None


def _magnitude(size: Fraction) -> int:
    """The rank of the leading digit: floor(log10(size)), exactly; size > 0."""
    rank = len(str(size.numerator)) - len(str(size.denominator))
    return rank if Fraction(10) ** rank <= size else rank - 1
