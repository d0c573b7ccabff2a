"""LaTeX to sympy objects by math-verify's grammar (latex2sympy2_extended), without its one way into an evaluator.

That package reads text with an ANTLR grammar and builds symbols, numbers and functions from the tree; it evaluates no text,
with one exception: it makes numbers by `sympy.Number(text)`, and sympy reads such a string with `parse_expr`, which is `eval`.
The grammar lets only digits, points, commas and exponents through to it, so nothing can be injected there; but no text of a
model should meet `eval` at all, and it costs time. So numbers are made here, directly.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_GROUPED_NUMBER = re.compile(r"\s*(-?)\s*([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?)\s*")
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_DIGITS = re.compile(r"[0-9]+")
_MAX_EXPONENT = 10_000


def parsed(text: str) -> Any:
    """The sympy object that a LaTeX text denotes, or None where it denotes none.

    As math-verify's `parse` does with the content of a box, but for two settings: letters keep their case (there, X is x), and
    `i` is the imaginary unit (there, a letter like any other). Units are not removed (there, `2h` is 2).

    Raises:
        RecursionError, MemoryError: for text that nests too deep or grows too large.
    """
    from latex2sympy2_extended import NormalizationConfig, normalize_latex
    from math_verify.grader import should_treat_as_complex
    from math_verify.parser import get_last_eq

    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    normal = normalize_latex(text, normalization)
    for form in dict.fromkeys((normal, get_last_eq(normal))):
        try:
            found = _read(form, is_real=not (should_treat_as_complex(form) or _IMAGINARY.search(form)))
        except (MemoryError, RecursionError):
            raise
        except Exception:  # noqa: BLE001 -- the grammar's way to say that this is no mathematics
            continue
        return _with_imaginary_unit(found)
    return None


def parsed_as_published(text: str) -> Any:
    """The same with math-verify's own settings: small letters, units removed, the letter i a letter."""
    from latex2sympy2_extended import NormalizationConfig, normalize_latex
    from math_verify.grader import should_treat_as_complex
    from math_verify.parser import get_last_eq

    everything = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    normal = normalize_latex(text, everything)
    for form in dict.fromkeys((normal, get_last_eq(normal))):
        try:
            return _read(form, is_real=not should_treat_as_complex(form), lowercase=True)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # noqa: BLE001 -- as above
            continue
    return None


def _read(text: str, *, is_real: bool, lowercase: bool = False) -> Any:
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    grouped = _GROUPED_NUMBER.fullmatch(text)  # 1,234 alone is a number; the package would make it itself
    if grouped:
        value = number(grouped[2])
        return -value if grouped[1] else value
    return _reader()(None, is_real, False, config=ConversionConfig(lowercase_symbols=lowercase)).parse(text)


def number(text: str) -> Any:
    """A sympy Integer or Float from digits, separators, a point and an exponent. Raises `ValueError` for anything else."""
    from sympy import Float, Integer

    digits = text.replace(",", "")
    if _DIGITS.fullmatch(digits):
        return Integer(int(digits))
    exponent = re.split("[eE]", digits)[-1] if re.search("[eE]", digits) else "0"
    if not re.fullmatch(r"[0-9]*\.?[0-9]*(?:[eE][-+]?[0-9]+)?", digits) or abs(int(exponent)) > _MAX_EXPONENT:
        raise ValueError(f"not a number: {text[:50]!r}")
    return Float(digits)


@lru_cache(maxsize=1)
def _reader() -> Any:
    """The package's converter with numbers made by `number`."""
    from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

    class Reader(_Latex2Sympy):  # type: ignore[misc]
        def parse_number(self, text: str) -> Any:
            return number(text)

    return Reader


def _with_imaginary_unit(found: Any) -> Any:
    """The object with the letter i read as the imaginary unit; equations stay equations."""
    from sympy import And, I, Tuple
    from sympy.core.relational import Relational

    letters = getattr(found, "free_symbols", ())
    imaginary = {letter: I for letter in letters if str(letter) == "i"}
    if not imaginary:
        return found
    if isinstance(found, Relational):
        return found.func(*(_with_imaginary_unit(side) for side in found.args), evaluate=False)
    if isinstance(found, And | Tuple) or type(found).__name__ == "FiniteSet":
        return found.func(*(_with_imaginary_unit(entry) for entry in getattr(found, "_unsorted_args", found.args)))
    return found.xreplace(imaginary)
