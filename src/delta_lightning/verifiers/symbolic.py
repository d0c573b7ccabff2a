r"""`math-verify` as the last stage, behind guard rails against the false positives measured in it.

math-verify (Hugging Face, Apache-2.0) parses LaTeX with its own grammar, without `eval`, and compares with sympy. It is
handed only `\boxed{gold}` and `\boxed{answer}`, and it runs without its own time limit, which is `signal.alarm`, fails in
threads and cancels the caller's alarms: the worker pool is the wall clock. It is imported when first needed (0.5 s).
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from delta_lightning.verifiers.numerals import numeral, same_number
from delta_lightning.verifiers.tidy import TEXT_COMMAND

_SPLIT = re.compile(r"(?<![\\<>!:=])=(?!=)")
_APPROX = re.compile(r"\\(?:approx|simeq|doteq)(?![A-Za-z])|\u2248")
# What may stand left of "= 42" without saying anything about the value: a name, with indices or arguments, or a measure.
_LABEL = re.compile(r"\\?[A-Za-z|\u2220][A-Za-z0-9|'\\ {}_,]*(?:\([^()=]*\))?[\s:]*|\|[^|=]*\|\s*|\([A-Za-z, ]*\)\s*")
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|lt|gt|neq?|in|equiv|approx|mid|to)(?![A-Za-z])")
_BRACKETED = re.compile(r"\s*[\[(].*,.*[\])]\s*", re.DOTALL)
_BASE_SUBSCRIPT = re.compile(r"[0-9]_\s*\{?\s*[0-9]")
_PERCENT = re.compile(r"%|(?:percent|pct)", re.IGNORECASE)
_TEXT_UNIT = re.compile(TEXT_COMMAND + r"\{\s*([^{}]*)\}\s*(?:\^\s*\{?[0-9]\}?)?\s*$")
_CONNECTIVE = frozenset({"and", "or", ""})
_MAX_PARTS = 5
_EXACT, _ROUNDED = 1e-10, 1e-5  # relative difference of two equal numbers, without and with decimals in them
_DIGITS = 30


def warm_up() -> None:
    """Import math-verify and compare once: the parser's tables are built at the first call."""
    same_meaning(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}")


def parses(gold: str) -> bool:
    """Whether the reference has a meaning that an answer can be compared with."""
    return bool(_parse_gold(gold))


def same_meaning(gold: str, answer: str) -> bool:
    r"""Whether two `tidy` texts, neither of them words, denote the same mathematical object. `gold` must parse.

    Raises: whatever the comparison raises; that is a failure of ours, not of the answer.
    """
    if "\\ldots" in gold or "\\ldots" in answer:  # the dots would be dropped: 1,2,...,n is not {1, 2, n}
        return False
    if _PERCENT.search(answer) and not _PERCENT.search(gold):
        return False
    if _BASE_SUBSCRIPT.search(answer) and not _BASE_SUBSCRIPT.search(gold):
        return False
    gold_unit, answer_unit = _unit(gold), _unit(answer)
    if gold_unit != answer_unit and (answer_unit is None or (gold_unit and answer_unit)):
        return False
    parts = [answer] if _RELATION.search(gold) else _values(answer)
    return all(_same_value(gold, part) for part in parts)


def _values(answer: str) -> list[str]:
    r"""What a chain `x = a = b \approx c` claims: its end if it begins with a name, else every link."""
    head, *tail = _APPROX.split(answer)
    if tail and _LABEL.fullmatch(head):
        head = tail[0]
    links = [link.strip() for link in _SPLIT.split(head)]
    if any("," in link for link in links[1:-1]):  # `y = 43, x = 42` is two claims, not a chain
        return [answer]
    if len(links) == 1:
        return links
    return links[-1:] if _LABEL.fullmatch(links[0]) else links[:_MAX_PARTS]


def _same_value(gold: str, answer: str) -> bool:
    gold_number, answer_number = numeral(gold), numeral(answer)
    if gold_number and answer_number:
        return same_number(gold_number, answer_number)
    if gold_number and _BRACKETED.fullmatch(answer):  # [42, 42] would be simplified to 42
        return False
    from math_verify import verify

    found = _parse_gold(gold), _parse(answer)
    if not all(found):
        return False
    left, right = _aligned(found[0][0], found[1][0])
    if left is None or right is None:
        return False
    equal = verify(left, right, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    return bool(equal) and _really_close(left, right)


@lru_cache(maxsize=4096)
def _parse_gold(gold: str) -> list[Any]:
    return _parse(gold)


def _parse(text: str) -> list[Any]:
    """The sympy object in a list of one, or an empty list where the text does not parse."""
    from math_verify import parse

    found: list[Any] = parse(
        "\\boxed{" + _without_unit(text) + "}",
        extraction_config=_extraction(),
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return found[:1]


@lru_cache(maxsize=1)
def _extraction() -> list[Any]:
    """LaTeX only, the box first. Units are ours to strip: theirs drops the last letter of `2h`."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last", equations=False
    )
    return [LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalization)]


def _unit(text: str) -> str | None:
    """The unit set as text at the end of a formula, as `numerals` names it; "" without any; None for other words there."""
    match = _TEXT_UNIT.search(text)
    if match is None or match[1].strip().lower() in _CONNECTIVE or not match.start():
        return ""
    number = numeral("1" + text[match.start() :].strip())
    return number.unit if number else None


def _without_unit(text: str) -> str:
    return text[: match.start()] if _unit(text) and (match := _TEXT_UNIT.search(text)) else text


def _aligned(left: Any, right: Any) -> tuple[Any, Any]:
    """Both sides in forms that math-verify can compare, or (None, None) where they cannot be equal."""
    from sympy import Basic, Eq, MatrixBase, Ne, Tuple, nan, zoo
    from sympy.core.relational import Relational

    undefined = any(isinstance(side, Basic) and side.has(nan, zoo) for side in (left, right))
    if undefined:  # `12:00` was read as a division by zero
        return None, None
    if isinstance(left, Relational) and isinstance(right, Relational) and Ne in (type(left), type(right)):
        if type(left) is not type(right):  # it has no rule for "not equal" and would raise
            return None, None
        return Eq(left.lhs, left.rhs, evaluate=False), Eq(right.lhs, right.rhs, evaluate=False)
    for side, other in ((left, right), (right, left)):  # a vector is the tuple of its entries
        if isinstance(side, MatrixBase) and 1 in side.shape and not isinstance(other, MatrixBase):
            flat = Tuple(*side)
            return (flat, right) if side is left else (left, flat)
    return left, right


def _really_close(left: Any, right: Any) -> bool:
    """Against `evalf(chop=True)`, to which all tiny numbers are 0: two numbers must also agree relatively."""
    from sympy import Expr, Float

    if not (isinstance(left, Expr) and isinstance(right, Expr)) or left.free_symbols or right.free_symbols:
        return True
    if left == right:
        return True
    first, second = left.doit().evalf(_DIGITS), right.doit().evalf(_DIGITS)
    size = max(abs(first), abs(second))
    difference = abs(first - second)
    if not (size.is_number and size.is_finite and difference.is_comparable):
        return True
    zero = [value == 0 or getattr(value, "_prec", _DIGITS) == 1 for value in (first, second)]
    if any(zero):
        return all(zero)
    tolerance = _ROUNDED if left.has(Float) or right.has(Float) else _EXACT
    return bool(difference <= size * tolerance)
