r"""Exact numbers as people and models write them: integers, decimals, fractions, mixed numbers, with units.

Our own reading, by regular expressions and `fractions.Fraction`: fast, exact, and nothing is evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from delta_lightning.verifiers.mathematics.tidy import TEXT_COMMAND

_MAX_CHARS = 400  # of a number with its unit; longer ones are left to the next stage
_MAX_EXPONENT = 400

_PLAIN = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:[ ][0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?)\s*(?P<currency>\\\$|\$|[£€¥])?\s*(?P<sign2>[-+]?)\s*
    (?:
        (?P<periodic>[0-9]*)\.(?P<before>[0-9]*)\\overline\{{\s*(?P<period>[0-9]+)\s*\}}
      | (?:(?P<whole>[0-9]+)\s*)?\\frac\{{\s*(?P<top>-?\s*{_PLAIN})\s*\}}\{{\s*(?P<bottom>-?\s*{_PLAIN})\s*\}}
      | (?P<whole2>[0-9]+)\s(?P<top2>[0-9]+)\s?/\s?(?P<bottom2>[0-9]+)
      | (?P<top3>{_PLAIN})\s?/\s?(?P<bottom3>-?{_PLAIN})
      | (?P<plain>{_PLAIN})
        (?:\s*(?:\\times|\*)\s*10\^(?:\{{\s*(?P<exponent>-?[0-9]+)\s*\}}|(?P<exponent2>[0-9]))
        |[eE](?P<exponent3>[-+]?[0-9]{{1,3}})(?![0-9A-Za-z]))?
    )
    (?P<tail>.*)
    """,
    re.VERBOSE | re.DOTALL,
)
_BASE = re.compile(r"_\s*(?:\{\s*([0-9]{1,3})\s*\}|([0-9]{1,2}))")
_PERCENT = re.compile(r"\\?%|(?:per\s?cent|percentage|pct)\b", re.IGNORECASE)
_WRAPPED = re.compile(TEXT_COMMAND + r"\{([^{}\\]*)\}")
_UNIT_TEXT = re.compile(r"[A-Za-z$\u00b2\u00b3^0-9/\s.\-]*")
_EXPONENT = re.compile(r"(?:(?<=[A-Za-z])|\^\s*)[2-4](?![0-9])")
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Words after which the number is another one, or none: `17 \text{ plus one}`, `17 \text{ below zero}`.
_NO_UNIT = frozenset({
    "not", "no", "or", "and", "wrong", "incorrect", "never", "except", "if", "nor", "but", "is", "are", "to", "than",
    "plus", "minus", "times", "over", "divided", "multiplied", "negative", "base", "mod", "modulo", "below", "under",
    "factorial", "pi", "root", "roots", "sqrt", "half", "halves", "third", "thirds", "quarter", "quarters", "fourth",
    "fourths", "fifth", "fifths", "tenth", "tenths", "hundredth", "hundredths", "thousandth", "thousandths", "point", "power",
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twice",
})  # fmt: skip
_POWERS = frozenset({"squared", "cubed"})  # of a unit: `5 \text{ meters squared}`; of the number where no unit stands before

# One name per unit, so that `cm` and `centimeters` agree. Single letters count only inside \text{} and the like:
# a bare `5m` or `2h` is a product.
_SAME_UNIT = {
    "centimeter": "cm", "centimetre": "cm", "meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km",
    "millimeter": "mm", "millimetre": "mm", "inche": "in", "inch": "in", "foot": "ft", "feet": "ft", "mile": "mi",
    "yard": "yd", "hour": "h", "hr": "h", "minute": "min", "second": "s", "sec": "s", "degree": "deg", "dollar": "$",
    "gram": "g", "kilogram": "kg", "liter": "l", "litre": "l", "pound": "lb", "unit": "", "percent": "%", "radian": "rad",
    "square": "sq", "cubic": "cu", "gallon": "gal", "ounce": "oz", "year": "yr",
}  # fmt: skip
_BARE_UNITS = frozenset({
    "cm", "mm", "km", "kg", "mg", "ml", "ft", "mph", "kmph", "lb", "lbs", "oz", "gal", "hr", "hrs", "min", "mins", "sec",
    "secs", "inch", "inches", "feet", "foot", "yard", "yards", "mile", "miles", "meter", "meters", "metre", "metres",
    "hour", "hours", "minute", "minutes", "second", "seconds", "day", "days", "week", "weeks", "month", "months", "year",
    "years", "degree", "degrees", "dollar", "dollars", "cent", "cents", "gram", "grams", "liter", "liters", "litre",
    "litres", "pound", "pounds", "gallon", "gallons", "unit", "units", "people", "students", "ways", "square", "cubic",
    "radians", "rad", "deg",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Numeral:
    """A number as written.

    Attributes:
        value: exact; of a percentage the number before the sign; of a number in another base its digits read as decimal.
        decimal: written with a decimal point. percent: followed by a percent sign.
        unit: canonical name of the unit, "" without one. base: the subscript, "" without one.
    """

    value: Fraction
    decimal: bool = False
    percent: bool = False
    unit: str = ""
    base: str = ""


def numeral(text: str) -> Numeral | None:
    """The number that the whole of a `tidy` text denotes, or None: not a number, or too long to be read here."""
    if len(text) > _MAX_CHARS or not any(character.isdigit() for character in text[:40]):
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    value = _value(match)
    tail = _tail(match["tail"])
    if value is None or tail is None or (match["sign"] and match["sign2"]):
        return None
    percent, unit, base, scale = tail
    value *= scale
    if match["currency"]:
        if unit not in ("", "$"):
            return None
        unit = match["currency"].replace("\\", "")
    negative = "-" in (match["sign"], match["sign2"])
    pieces = (match[name] or "" for name in ("plain", "top", "bottom", "top3", "bottom3"))
    return Numeral(
        value=-value if negative else value,
        decimal=any("." in piece for piece in pieces),
        percent=percent,
        unit=unit,
        base=base,
    )


def same_number(gold: Numeral, answer: Numeral, *, digits: int = 6, percent: str = "as_reference") -> bool:
    r"""Whether `answer` is the number `gold`.

    Exact, but for a fraction that no decimal can write out: its decimal must agree to `digits` places, and relatively to one
    place less. A unit may be left out or added; two different ones are never equal, nor are two different bases. A percent
    sign that the gold lacks is wrong (42 is not `42\%`); one that the answer lacks is read either way (`50\%` is 50 or 0.5);
    `percent` is a setting of `Staged`.
    """
    if answer.base and answer.base != gold.base:
        return False
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if answer.percent != gold.percent and (percent == "exact" or (answer.percent and percent != "either")):
        return False
    wanted, got = [gold.value], [answer.value]
    if gold.percent != answer.percent:
        (wanted if gold.percent else got).append((gold.value if gold.percent else answer.value) / 100)
    return any(_close(value, gold.decimal, claim, answer.decimal, digits) for value in wanted for claim in got)


def _close(wanted: Fraction, decimal: bool, got: Fraction, got_decimal: bool, digits: int) -> bool:
    if wanted == got:
        return True
    if decimal == got_decimal:
        return False
    written, exact = (wanted, got) if decimal else (got, wanted)
    difference = abs(written - exact)
    return (
        not _terminates(exact)
        and difference < Fraction(1, 10**digits)
        and difference <= abs(exact) * Fraction(1, 10 ** (digits - 1))
    )


def _terminates(value: Fraction) -> bool:
    """True where a finite decimal writes the value exactly."""
    bottom = value.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    return bottom == 1


def _value(match: re.Match[str]) -> Fraction | None:
    if match["period"] is not None:
        return _periodic(match["periodic"], match["before"], match["period"])
    if match["plain"] is not None:
        exponent = int(match["exponent"] or match["exponent2"] or match["exponent3"] or 0)
        return _plain(match["plain"]) * Fraction(10) ** exponent if abs(exponent) <= _MAX_EXPONENT else None
    top = _plain(match["top"] or match["top2"] or match["top3"])
    bottom = _plain(match["bottom"] or match["bottom2"] or match["bottom3"])
    if bottom == 0:
        return None
    whole = match["whole"] or match["whole2"]
    if whole is None:
        return top / bottom
    mixed = 0 < top < bottom and top.denominator == bottom.denominator == 1  # otherwise a product, perhaps
    return int(whole) + top / bottom if mixed else None


def _periodic(whole: str, before: str, period: str) -> Fraction:
    r"""The value of `0.1\overline{6}`."""
    scale = 10 ** len(before)
    return Fraction(int((whole or "0") + before), scale) + Fraction(int(period), scale * (10 ** len(period) - 1))


def _plain(digits: str) -> Fraction:
    digits = digits.replace(",", "").replace(" ", "")
    return Fraction(digits + "0" if digits.endswith(".") else digits)


def _tail(tail: str) -> tuple[bool, str, str, int] | None:
    """(percent, unit, base, scale) of what follows a number, or None where it is no unit. The scale of `thousand` is 1000."""
    tail = tail.strip()
    if not tail:
        return False, "", "", 1
    base = _BASE.fullmatch(tail)
    if base:
        return False, "", base[1] or base[2], 1
    wrapped = "\\" in tail.replace("\\%", "").replace("\\circ", "")
    tail = _WRAPPED.sub(lambda word: f" {word[1]} ", tail).replace("^\\circ", " degrees ").strip()
    if _PERCENT.fullmatch(tail):
        return True, "", "", 1
    if not _UNIT_TEXT.fullmatch(tail) or not any(character.isalpha() or character == "$" for character in tail):
        return None
    if any(character.isdigit() for character in _EXPONENT.sub("", tail)):  # `2 \text{ hours } 30`, `17 \text{ plus } 1`
        return None
    words = re.findall(r"[A-Za-z$]+|[\^\u00b2\u00b3/0-9]", tail.lower())
    names = [word for word in words if word.isalpha()]
    scale = 1
    while names and names[0].removesuffix("s") in _SCALES and words[0] == names[0]:
        scale *= _SCALES[names.pop(0).removesuffix("s")]
        words.pop(0)
    if not names and "$" not in words:
        return None if words else (False, "", "", scale)
    if words[0] in _POWERS:
        return None
    if _NO_UNIT.intersection(names) or len(names) > 5 or (not wrapped and not _BARE_UNITS.issuperset(names)):
        return None
    units = [_canonical(word) for word in words]
    if units[0] in ("sq", "cu"):  # `square meters` is `m^2`
        units = [*units[1:2], "2" if units[0] == "sq" else "3", *units[2:]]
    return False, "".join(units), "", scale


def _canonical(word: str) -> str:
    if word in ("\u00b2", "\u00b3"):
        return "2" if word == "\u00b2" else "3"
    if word in _POWERS:
        return "2" if word == "squared" else "3"
    if word in ("^", "per"):
        return "" if word == "^" else "/"
    for name in (word, word.removesuffix("s") if len(word) > 2 else word):
        if name in _SAME_UNIT:
            return _SAME_UNIT[name]
    return word.removesuffix("s") if len(word) > 3 else word
