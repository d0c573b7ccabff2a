"""Whether two sympy objects differ, by their values: what is cheap to tell apart need not be simplified.

Two expressions that are equal have the same value wherever both are defined. So each letter gets a fixed positive number, and
where the values differ by more than rounding, the answer is wrong. This never says that two objects are equal. It is also the
guard rail against math-verify's `evalf(chop=True)`, to which all tiny numbers are 0.
"""

from __future__ import annotations

from typing import Any

_EXACT = 1e-10  # relative difference of two equal numbers without decimals in them
_PLACES = 30
_MAX_LETTERS = 6
_MAX_ENTRIES = 12


def different_in_value(left: Any, right: Any, digits: int) -> bool:
    """True where the two cannot be equal. Objects other than expressions, sets and tuples of them are not told apart.

    Args:
        left: a sympy object. right: another.
        digits: decimal places of a rounded decimal, as in `Staged`.
    """
    from sympy import Expr, FiniteSet, Tuple

    if isinstance(left, Expr) and isinstance(right, Expr):
        return _different(left, right, digits)
    if isinstance(left, Tuple) and isinstance(right, Tuple):
        return len(left) != len(right) or any(
            different_in_value(first, second, digits) for first, second in zip(left, right, strict=True)
        )
    if isinstance(left, FiniteSet) and isinstance(right, FiniteSet) and max(len(left), len(right)) <= _MAX_ENTRIES:
        return not (_covered(left, right, digits) and _covered(right, left, digits))
    return False


def _covered(some: Any, others: Any, digits: int) -> bool:
    """Whether every entry might be one of the others."""
    return all(any(not different_in_value(entry, other, digits) for other in others) for entry in some)


def _different(left: Any, right: Any, digits: int) -> bool:
    from sympy import Float, Symbol, UnevaluatedExpr

    if left == right:
        return False
    if isinstance(left, Symbol) or isinstance(right, Symbol) or left.has(UnevaluatedExpr) or right.has(UnevaluatedExpr):
        return False  # names that run together and percentages have rules of their own
    letters = sorted({str(letter) for letter in left.free_symbols | right.free_symbols})
    if len(letters) > _MAX_LETTERS:
        return False
    try:
        first, second = _value(left, letters), _value(right, letters)
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError):
        return False  # no value there; the comparison proper decides
    sizes = abs(first), abs(second)
    difference = abs(first - second)
    if not all(value.is_number and value.is_finite and value.is_comparable for value in (*sizes, difference)):
        return False
    size = max(sizes)
    zero = [value == 0 or getattr(value, "_prec", _PLACES) == 1 for value in (first, second)]
    if any(zero):
        return not all(zero)
    tolerance = 10.0 ** (1 - digits) if left.has(Float) or right.has(Float) else _EXACT
    return bool(difference > size * tolerance)


def _value(expression: Any, letters: list[str]) -> Any:
    """The number that it is with each letter replaced by one of its own, between 1/2 and 3."""
    from sympy import Rational

    if expression.free_symbols:
        numbers = {letter: Rational(617 + 211 * place, 1009) for place, letter in enumerate(letters)}
        expression = expression.xreplace({letter: numbers[str(letter)] for letter in expression.free_symbols})
    return expression.doit().evalf(_PLACES)
