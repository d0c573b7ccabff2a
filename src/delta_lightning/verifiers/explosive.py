r"""Which answers must not be handed to an algebra system. Pure text, linear time.

Measured with math-verify 0.9.0: each of the forms below costs 5 s to minutes and up to 330 MB before it fails, so that 1 % of
such answers among 2,048 would hold a run up for minutes. Written to miss rather than to refuse: what slips through meets the
pool's limit. What a person writes as an answer (`2^{2025}`, `\binom{2025}{3}`, `100!`, ten brackets deep) passes.
"""

from __future__ import annotations

import re

_MAX_DEPTH = 40
_MAX_EXPONENT = 20_000  # of a number, in digits of the result
_MAX_FACTORIAL = 3_000
_MAX_CHOOSE = 20_000
_MAX_TERMS = 150
_MAX_SUM_POWER = 30
_MAX_RANGE = 10_000

_TOWER = re.compile(r"\^\s*\{?\s*[0-9]+\s*\^\s*\{?\s*[0-9]")
_POWER = re.compile(r"(?<![0-9.])([0-9]+(?:\.[0-9]+)?)\s*\^\s*(?:\{\s*-?\s*([0-9]+)\s*\}|([0-9]))")
_GROUP_POWER = re.compile(r"[)\]}]\s*\^\s*\{?\s*-?\s*([0-9]+)")
_FACTORIAL = re.compile(r"([0-9]+)\s*!")
_REPEATED_FACTORIAL = re.compile(r"!\s*\)+\s*!|!!!|\([0-9^{}\s*+]+\)\s*!")
_CHOOSE = re.compile(r"\\[dt]?binom\s*\{?\s*([0-9]+)")
_RANGE = re.compile(r"\\(?:prod|sum)[^a-zA-Z].*?\^\s*\{?\s*([0-9]+)", re.DOTALL)
_NESTED_FUNCTION = re.compile(r"\\(?:sin|cos|tan|log|ln|exp|sqrt)(?![A-Za-z])")
_NUMBER = re.compile(r"[0-9]+")
_SINGLE_POWER = re.compile(r"[0-9]{2,}\s*\^\s*\{?\s*[0-9^{}\s]+")
_SINGLE_FACTORIAL = re.compile(r"([0-9]+)\s*!+")


def explosive(text: str) -> str | None:
    """Why this `tidy` text must not be parsed or simplified, or None where nothing is known against it."""
    depth = _depth(text)
    if depth > _MAX_DEPTH:
        return f"brackets nested {depth} deep"
    if len(_NESTED_FUNCTION.findall(text)) > _MAX_DEPTH:
        return "too many functions"
    if text.count("+") + text.count("-") + text.count(",") + text.count("=") > _MAX_TERMS:
        return "too many terms"
    if "^" in text:
        reason = _powers(text)
        if reason:
            return reason
    if "!" in text:
        if _REPEATED_FACTORIAL.search(text):
            return "a factorial of more than a number"
        if any(_over(digits, _MAX_FACTORIAL) for digits in _FACTORIAL.findall(text)):
            return "a huge factorial"
    if "binom" in text and any(_over(digits, _MAX_CHOOSE) for digits in _CHOOSE.findall(text)):
        return "a huge binomial"
    if ("\\prod" in text or "\\sum" in text) and any(_over(digits, _MAX_RANGE) for digits in _RANGE.findall(text)):
        return "a huge sum or product"
    return None


def beyond(text: str) -> bool:
    """Whether the whole text is an integer too large for any number that the exact stage reads (more than 10^800).

    Only forms whose size needs no evaluation: a factorial of at least 1,000, a power of a number of two or more digits whose
    exponent, or the foot of its tower, says so.
    """
    factorial = _SINGLE_FACTORIAL.fullmatch(text)
    if factorial:
        return _over(factorial[1], 999)
    if not _tower(text):
        return False
    levels = [int(digits) if len(digits) <= 9 else 10**9 for digits in _NUMBER.findall(text)]
    return min(levels) >= 2 and _exceeds(levels)


def _exceeds(levels: list[int]) -> bool:
    """Whether the tower a^(b^(c...)) with every level at least 2 is beyond 10^801; from the top down, capped."""
    top = levels[-1]
    for level in reversed(levels[1:-1]):
        top = level**top if top <= 64 else 10**18
        top = min(top, 10**18)
    return top * (len(str(levels[0])) - 1 or 0.3) > 801


def _tower(text: str) -> bool:
    """Whether the text is one power of numbers, `9^{9^9}`, and nothing else."""
    bare = re.sub(r"\s", "", text)
    flat = bare.replace("{", "").replace("}", "")
    nested = re.fullmatch(r"[0-9]+(?:\^\{?[0-9]+)+\}*", bare)
    return bool(nested) and bare.count("{") == bare.count("}") and re.fullmatch(r"[0-9]+(?:\^[0-9]+)+", flat) is not None


def _powers(text: str) -> str | None:
    if _TOWER.search(text):
        return "a tower of powers"
    for base, braced, single in _POWER.findall(text):
        exponent = braced or single
        if len(exponent) > 9 or int(exponent) * len(base) > _MAX_EXPONENT:
            return "a huge power"
    for exponent in _GROUP_POWER.findall(text):
        if _over(exponent, _MAX_SUM_POWER) and ("+" in text or "-" in text[1:]) and any(c.isalpha() for c in text):
            return "a large power of a sum"
        if _over(exponent, _MAX_EXPONENT):
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
