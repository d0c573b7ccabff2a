r"""`math-verify` as the last stage, behind guard rails against the false positives measured in it.

math-verify (Hugging Face, Apache-2.0) parses LaTeX with its own grammar (latex2sympy2_extended), without `eval`, and compares
with sympy. It is handed the two answers alone, and it runs without its own time limit, which is `signal.alarm`, fails in
threads and cancels the caller's alarms: the worker pool is the wall clock. It is imported when first needed (0.5 s).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from delta_lightning.verifiers.mathematics.comparison import OddFormError
from delta_lightning.verifiers.mathematics.latex import parsed
from delta_lightning.verifiers.mathematics.numerals import Numeral, numeral, same_number
from delta_lightning.verifiers.mathematics.samples import different_in_value
from delta_lightning.verifiers.mathematics.tidy import TEXT_COMMAND

_SPLIT = re.compile(r"(?<![\\<>!:=])=(?!=)")
_APPROX = re.compile(r"\\(?:approx|simeq|doteq)(?![A-Za-z])|\u2248")
# What may stand left of "= 42" without saying anything about the value: a name, with indices or arguments, or a measure.
_LABEL = re.compile(
    r"\\?[A-Za-z|\u2220][A-Za-z0-9|'\\ {}_,]*(?:\([^()=]*\))?[\s:]*"
    r"|\|[^|=]*\|\s*|\([A-Za-z\\, ]*\)\s*|\[[A-Z]{3,}\]\s*|[A-Za-z](?:\s*\+\s*[A-Za-z])+\s*"
)
# `\frac{3}{4} = 42` says something: these are values. A ratio of names, `\frac{a}{b}`, is none.
_NO_LABEL = re.compile(r"\\(?:sqrt|binom|pi|infty)(?![A-Za-z])|\\frac(?![A-Za-z]).*[0-9]|\\[A-Za-z]+\s*\{?\s*[0-9]")
_DEGREES = re.compile(r"(?<![0-9.])([0-9]+(?:\.[0-9]+)?)\s*\^\\circ(?![A-Za-z])")
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_NAME = re.compile(r"[A-Za-z]")
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|lt|gt|neq?|in|equiv|approx|mid|to)(?![A-Za-z])")
_BRACKETED = re.compile(r"\s*[\[(].*,.*[\])]\s*", re.DOTALL)
_BASE_SUBSCRIPT = re.compile(r"[0-9]_\s*\{?\s*[0-9A-Za-z\\]")
_PERCENT = re.compile(r"%|(?:percent|pct)", re.IGNORECASE)
_TEXT_UNIT = re.compile(TEXT_COMMAND + r"\{\s*([^{}]*)\}\s*(?:\^\s*\{?[0-9]\}?)?\s*$")
_EITHER = re.compile(
    r"\s*,?\s*(?:\\(?:text|mbox|textrm)\{\s*(?:or|and)\s*\}|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])|\\lor(?![A-Za-z]))\s*"
)
_OR = re.compile(r"\s*,?\s*(?:\\(?:text|mbox|textrm)\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![A-Za-z]))\s*")
_AND = re.compile(r"\s*,?\s*(?:\\(?:text|mbox|textrm)\{\s*and\s*\}|(?<![A-Za-z\\])and(?![A-Za-z])|\\land(?![A-Za-z]))\s*")
_COMMA = re.compile(r"\s*[,;]\s*")
_NEXT_CLAIM = re.compile(
    r";|\\\\|\\(?:text|mbox|implies|Rightarrow|Longrightarrow|to|lor|land)(?![A-Za-z])|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])"
)
_CLAIM = re.compile(r"\s*([A-Za-z])(?:_\{?[0-9]\}?)?\s*=([^=<>]+)")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|lt|gt)(?![A-Za-z])")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_BRACES = re.compile(r"\\\{.*,.*\\\}", re.DOTALL)
_CONNECTIVE = frozenset({"and", "or", ""})
_MAX_PARTS = 5


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The settings of `Staged`, in the form in which this stage reads them.

    Args:
        digits, percent: as there.
        strict: variables are named.
        either_form: an interval may be written as an inequality.
        every_link: every link of a chain of equations is a claim.
    """

    digits: int = 6
    percent: str = "as_reference"
    strict: bool = True
    either_form: bool = True
    every_link: bool = True


def warm_up() -> None:
    """Import math-verify and compare once: the parser's tables are built at the first call."""
    parses(r"\frac{\sqrt{2}}{2}")
    same_meaning(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", Rules())


def parses(gold: str) -> bool:
    """Whether the reference has a meaning that an answer can be compared with."""
    return _parse_gold(gold) is not None


def same_form(gold: str, answer: str) -> bool:
    """Whether two `tidy` texts are the same expression up to the order of sums and products; nothing is expanded."""
    from sympy import Expr

    wanted, got = _parse_gold(gold), _parse(answer)
    if not (isinstance(wanted, Expr) and isinstance(got, Expr)):
        return wanted is not None and bool(wanted == got)
    return bool(wanted.doit() == got.doit())  # `doit` sorts what the parser left unsorted


def same_meaning(gold: str, answer: str, rules: Rules) -> bool:
    r"""Whether two `tidy` texts, neither of them words, denote the same mathematical object. `gold` must parse.

    Raises: whatever the comparison raises; that is a failure of ours, not of the answer.
    """
    if "\\ldots" in gold or "\\ldots" in answer:  # the dots would be dropped: 1,2,...,n is not {1, 2, n}
        return False
    signs = bool(_PERCENT.search(gold)), bool(_PERCENT.search(answer))
    if signs[0] != signs[1] and (rules.percent == "exact" or (signs[1] and rules.percent != "either")):
        return False
    if _BRACES.fullmatch(gold) and _BRACKETED.fullmatch(answer):  # a set is no ordered tuple
        return not rules.strict and _same_value(gold, answer, rules)
    if _BASE_SUBSCRIPT.search(answer) and not _BASE_SUBSCRIPT.search(gold):
        return False
    gold_unit, answer_unit = _unit(gold), _unit(answer)
    if gold_unit != answer_unit and (answer_unit is None or (gold_unit and answer_unit)):
        return False
    gold, answer = _listed(gold), _listed(answer)
    if not _RELATION.search(answer):
        gold = _in_order(gold)
    parts = [answer] if _RELATION.search(gold) else _values(_unlabelled(answer))
    return all(_same_value(gold, part, rules) for part in (parts if rules.every_link else parts[-1:]))


def _unlabelled(answer: str) -> str:
    r"""`x = 5 \text{ or } x = -5` and `x_1 = 5, x_2 = -5` as `5, -5`; everything else as it is."""
    for separator in (_EITHER, _COMMA):
        claims = [_CLAIM.fullmatch(part) for part in separator.split(answer)]
        if len(claims) > 1 and all(claims) and len({claim[1] for claim in claims if claim}) == 1:
            return ", ".join(claim[2] for claim in claims if claim)
    return answer


def _in_order(gold: str) -> str:
    """`x = 3, y = 1`, different names, as the tuple `(3, 1)`: values alone must stand in its order; all else as it is."""
    claims = [_CLAIM.fullmatch(part) for part in _COMMA.split(gold)]
    found = [claim for claim in claims if claim]
    if len(found) < 2 or len(found) != len(claims) or len({claim[1] for claim in found}) != len(found):
        return gold
    return "(" + ", ".join(claim[2] for claim in found) + ")"


def _values(answer: str) -> list[str]:
    r"""What a chain `x = a = b \approx c` claims: its end if it begins with a name, else every link."""
    head, *tail = _APPROX.split(answer)
    if tail and (not head.strip() or _is_label(head)):
        head = tail[0]
    elif any(_SPLIT.search(part) for part in tail):  # `\sqrt{2} \approx 1.41 = 1.5`
        head = "=".join([head, *tail])
    links = [link.strip() for link in _SPLIT.split(head)]
    if any("," in link for link in links[1:-1]):  # `y = 43, x = 42` is two claims, not a chain
        return [answer]
    if any(_NEXT_CLAIM.search(link) for link in links[1:-1]):  # `y = 43 \text{ or } x = 42` too: every part must be right
        return links
    if len(links) == 1:
        return links
    if _is_label(links[0]):
        return links[-1:]
    return links[:1] if len(links) == 2 and _NAME.fullmatch(links[1]) else links[:_MAX_PARTS]


def _is_label(text: str) -> bool:
    """Whether what stands left of an equals sign names a value without saying which."""
    return bool(_LABEL.fullmatch(text)) and not _NO_LABEL.search(text)


def _same_value(gold: str, answer: str, rules: Rules) -> bool:
    gold_number, answer_number = numeral(gold), numeral(answer)
    if gold_number and answer_number:
        return same_number(gold_number, answer_number, digits=rules.digits, percent=rules.percent)
    if gold_number and _BRACKETED.fullmatch(answer):  # [42, 42] would be simplified to 42
        return False
    left, right = _exactly(gold_number), _exactly(answer_number)
    found = _parse_gold(gold) if left is None else left, _parse(answer) if right is None else right
    if found[0] is None or found[1] is None:
        return False
    left, right = _aligned(*found)
    if left is None or right is None:
        return False
    if rules.strict and different_in_value(left, right, rules.digits):
        return False
    compare = partial(
        _verify(),
        float_rounding=rules.digits,
        strict=rules.strict,
        allow_set_relation_comp=rules.either_form,
        timeout_seconds=None,
        raise_on_error=True,
    )
    try:
        return bool(compare(left, right))
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # any kind, from any depth of sympy; reported in the verdict's reason
        # Either the library is broken, which is our failure, or it stumbles over the form of this answer: then it still
        # knows the reference, and the answer is wrong. Else a model could leave the batch with an odd answer.
        if not compare(left, left):
            raise
        raise OddFormError(f"{type(error).__name__}: {error}") from error


def _exactly(number: Numeral | None) -> Any:
    """A number that was read before, as sympy's, so that the grammar cannot read `1 000` as a product; else None."""
    from sympy import Float, Rational

    if number is None or number.percent or number.base:
        return None
    value = Rational(number.value.numerator, number.value.denominator)
    return Float(value, max(15, len(str(value.p)))) if number.decimal else value


def _either(text: str) -> Any:
    r"""`x < -2 \text{ or } x > 3` as the union of two intervals; None for everything else."""
    parts = _OR.split(text)
    if len(parts) < 2 or not all(_INEQUALITY.search(part) for part in parts):
        return None
    from sympy import Union
    from sympy.core.relational import Relational

    found = [parsed(part) for part in parts]
    if not all(isinstance(part, Relational) for part in found) or len(set().union(*(part.free_symbols for part in found))) != 1:
        return None
    return Union(*(part.as_set() for part in found))


@lru_cache(maxsize=1)
def _verify() -> Any:
    """math-verify's comparison, silent about its own time limit, which is off."""
    from math_verify import verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return verify


@lru_cache(maxsize=1024)
def _parse_gold(gold: str) -> Any:
    return _parse(gold)


def _parse(text: str) -> Any:
    """The sympy object, or None where the text does not parse."""
    text = _without_unit(text)
    if "\\circ" in text and _ANGLE_FUNCTION.search(text):  # the grammar reads 30^\circ as 30
        text = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    found = _either(text)
    if found is None:
        found = parsed(text)
    if found is None and "," not in text and ("\\pm" in text or "\\mp" in text):
        from latex2sympy2_extended.sets import FiniteSet

        upper = parsed(_PLUS_MINUS.sub(lambda sign: "+" if sign[1] == "pm" else "-", text))
        lower = parsed(_PLUS_MINUS.sub(lambda sign: "-" if sign[1] == "pm" else "+", text))
        found = None if upper is None or lower is None else FiniteSet(upper, lower)
    return found


def _unit(text: str) -> str | None:
    """The unit set as text at the end of a formula, as `numerals` names it; "" without any; None for other words there."""
    return _split_unit(text)[1]


def _listed(text: str) -> str:
    r"""`x = 1 \text{ and } y = 3` as `x = 1, y = 3`; everything else as it is."""
    parts = _AND.split(text)
    return ", ".join(parts) if len(parts) > 1 and all(_CLAIM.fullmatch(part) for part in parts) else text


def _without_unit(text: str) -> str:
    return _split_unit(text)[0]


def _split_unit(text: str) -> tuple[str, str | None]:
    """A formula and its unit; `units` is a unit without a name."""
    match = _TEXT_UNIT.search(text)
    if match is None or match[1].strip().lower() in _CONNECTIVE or not match.start():
        return text, ""
    number = numeral("1" + text[match.start() :].strip())
    return (text[: match.start()], number.unit) if number and number.value == 1 else (text, None)


def _aligned(left: Any, right: Any) -> tuple[Any, Any]:
    """Both sides in forms that math-verify can compare, or (None, None) where they cannot be equal."""
    from sympy import And, Basic, Eq, MatrixBase, Ne, Symbol, Tuple, nan, zoo
    from sympy.core.relational import Relational

    if isinstance(left, Eq) and isinstance(left.lhs, Symbol) and not isinstance(right, Relational | And):
        left = left.rhs  # the reference names its value, the answer does not
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


def equal_by_simplification(first: str, second: str) -> bool:
    """Whether sympy simplifies the difference of two LaTeX expressions to 0; False where one does not parse."""
    from sympy import Expr, simplify

    left, right = parsed(first), parsed(second)
    if not (isinstance(left, Expr) and isinstance(right, Expr)):
        return False
    try:
        return bool(simplify(left - right) == 0)
    except (TypeError, ValueError, NotImplementedError):  # no difference to simplify: sets, unknown functions
        return False
