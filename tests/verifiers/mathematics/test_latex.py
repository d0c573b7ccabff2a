from __future__ import annotations

import pytest
import sympy

from delta_lightning.verifiers.mathematics.latex import number, parsed, parsed_as_published


def test_letters_keep_their_case_and_i_is_imaginary() -> None:
    assert parsed("X") != parsed("x")
    assert parsed("i^2") == -1 or parsed("i^2").doit() == -1
    assert parsed("2h") is not None and parsed("2h").free_symbols
    assert parsed_as_published("X") == parsed_as_published("x")
    assert parsed_as_published("i^2").free_symbols


@pytest.mark.parametrize("text", ["", "\\frac{", "+", "\\operatorname{foo}(x)", "A \\cup B", "))(("])
def test_what_is_no_mathematics_is_none(text: str) -> None:
    assert parsed(text) is None
    assert parsed_as_published(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", sympy.Integer(42)),
        ("007", sympy.Integer(7)),
        ("1,234", sympy.Integer(1234)),
        ("2.50", sympy.Float("2.50")),
        (".5", sympy.Float("0.5")),
        ("1E3", sympy.Float("1E3")),
    ],
)
def test_numbers(text: str, value: sympy.Number) -> None:
    found = number(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["1E99999999", "x", "1+1", "", "__import__('os')"])
def test_nothing_else_is_a_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number|could not|invalid"):
        number(text)


@pytest.mark.parametrize("text", ["1,234", "-1,234.5", "0.333333333333333333333333", "12", "1.5x", "\\frac{1}{3}", "3,1,2"])
def test_numbers_are_those_of_the_library(text: str) -> None:
    """Ours replace the library's, so they must be the same objects."""
    from latex2sympy2_extended import latex2sympy

    theirs = latex2sympy(text, is_real=True, normalization_config=None)
    assert parsed(text) == theirs
