r"""Which answers must not be handed to an algebra system. Pure text, linear time.

Measured with math-verify 0.9.0: each of the forms below costs 5 s to minutes and up to 330 MB before it fails, so that 1 % of
such answers among 2,048 would hold a run up for minutes. Written to miss rather than to refuse: what slips through meets the
pool's limit. What a person writes as an answer (`2^{2025}`, `\binom{2025}{3}`, `100!`, ten brackets deep) passes.
"""

from __future__ import annotations

import re

_MAX_DEPTH = 20  # brackets; the deepest reference in ten public sets of problems has 3
_MAX_FUNCTIONS = 30
_MAX_DIGITS = 20_000  # of a power of numbers
_MAX_FACTORIAL = 3_000
_MAX_CHOOSE = 20_000
_MAX_TERMS = 150
_MAX_BARS = 12  # absolute values: the grammar tries every pairing
_MAX_RANGE = 10_000
_MAX_SUM_POWER = 30

_TOWER = re.compile(r"([0-9]+)((?:\s*\^\s*\{?\s*[0-9]+){2,})")
_LETTER_TOWER = re.compile(r"(?:\^\s*\{?\s*[A-Za-z0-9]+\s*){5}")
_POWER = re.compile(r"(?<![0-9.])([0-9]+(?:\.[0-9]+)?)\s*\^\s*(?:\{\s*-?\s*([0-9]+)\s*\}|([0-9]))")
_GROUP_POWER = re.compile(r"[)\]}]\s*\^\s*\{?\s*-?\s*([0-9]+)")
_FACTORIAL = re.compile(r"([0-9]+)\s*!")
_REPEATED_FACTORIAL = re.compile(r"!\s*\)+\s*!|!!!|\([0-9^{}\s*+]+\)\s*!")
_CHOOSE = re.compile(r"\\[dt]?binom\s*\{?\s*([0-9]+)")
_RANGE = re.compile(r"\\(?:prod|sum)(?![A-Za-z])[^^]{0,80}\^\s*\{?\s*([0-9]+)")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|log|ln|exp|sqrt)(?![A-Za-z])")
_DIGITS = re.compile(r"[0-9]+")
_SINGLE_FACTORIAL = re.compile(r"([0-9]+)\s*!+")


def explosive(text: str) -> str | None:
    """Why this `tidy` text must not even be parsed, or None where nothing is known against it."""
    depth = _depth(text)
    if depth > _MAX_DEPTH:
        return f"brackets nested {depth} deep"
    if len(_FUNCTION.findall(text)) > _MAX_FUNCTIONS:
        return "too many functions"
    if sum(text.count(sign) for sign in "+-,=") > _MAX_TERMS or text.count("|") > _MAX_BARS:
        return "too many terms"
    if "^" in text and (reason := _powers(text)):
        return reason
    if "!" in text:
        if _REPEATED_FACTORIAL.search(text):
            return "a factorial of a factorial"
        if any(_over(digits, _MAX_FACTORIAL) for digits in _FACTORIAL.findall(text)):
            return "a huge factorial"
    if "binom" in text and any(_over(digits, _MAX_CHOOSE) for digits in _CHOOSE.findall(text)):
        return "a huge binomial"
    if ("\\prod" in text or "\\sum" in text) and any(_over(digits, _MAX_RANGE) for digits in _RANGE.findall(text)):
        return "a huge sum or product"
    return None


def expands(text: str) -> bool:
    """Whether a `tidy` text holds a large power of a sum: cheap to parse, but to compare it by value means to expand it."""
    powers = _GROUP_POWER.findall(text) if "^" in text and ("+" in text or "-" in text) else ()
    return any(_over(exponent, _MAX_SUM_POWER) for exponent in powers)


def beyond(text: str) -> bool:
    """Whether the whole text is an integer too large for any number that the exact stage reads (more than 10^800).

    Only forms whose size needs no evaluation: a factorial of at least 1,000, a power of a number of two or more digits whose
    exponent, or the foot of its tower, says so.
    """
    factorial = _SINGLE_FACTORIAL.fullmatch(text)
    if factorial:
        return _over(factorial[1], 999)
    bare = re.sub(r"\s", "", text)
    if bare.count("{") != bare.count("}") or not re.fullmatch(r"[0-9]+(?:\^\{?[0-9]+)+\}*", bare):
        return False
    levels = _levels(bare)
    return min(levels) >= 2 and _digits(levels) > 801


def _levels(tower: str) -> list[int]:
    """The numbers of a tower, from the foot up; beyond nine digits any size is as good as another."""
    return [int(digits) if len(digits) <= 9 else 10**9 for digits in _DIGITS.findall(tower)]


def _digits(levels: list[int]) -> float:
    """At most how many digits a^(b^(c...)) has: a lower bound where levels[0] is one digit. Capped at 10^18."""
    exponent = levels[-1]
    for level in reversed(levels[1:-1]):
        exponent = min(level**exponent if exponent <= 64 else 10**18, 10**18) if level > 1 else level
    return exponent * (len(str(levels[0])) - 1 or 0.3)


def _powers(text: str) -> str | None:
    if _LETTER_TOWER.search(text):
        return "a tower of powers"
    for foot, rest in _TOWER.findall(text):
        if _digits([int(foot[:9]), *_levels(rest)]) > _MAX_DIGITS / 4:
            return "a tower of powers"
    for base, braced, single in _POWER.findall(text):
        exponent = braced or single
        if len(exponent) > 9 or int(exponent) * len(base) > _MAX_DIGITS:
            return "a huge power"
    if any(_over(exponent, _MAX_DIGITS) for exponent in _GROUP_POWER.findall(text)):
        return "a huge power"
    return None


def _over(digits: str, limit: int) -> bool:
    return len(digits) > 9 or int(digits) > limit


def _depth(text: str) -> int:
    deepest = depth = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest
