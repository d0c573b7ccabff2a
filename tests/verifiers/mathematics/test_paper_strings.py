from __future__ import annotations

import pytest

from delta_lightning.verifiers.mathematics.paper_strings import (
    elements,
    integer,
    mathd_form,
    plain_form,
    reference_form,
    repetitive,
)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("42.", "42"),
        ("\\dfrac12", "\\frac{1}{2}"),
        ("1/2", "\\frac{1}{2}"),
        ("2\\cdot 3", "23"),  # as the released code does
        ("\\text{Yes}", "Yes"),
        ("5\\text{ cm}", "5"),
        ("90^\\circ", "90"),
        ("\\$5", "5"),
        ("x\\in[0,1]", "[0,1]"),
        ("3.0", "3"),
        (".5", "0.5"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("3j", "3i"),
        ("infinity", "\\infty"),
        ("5\\%", "5%"),
        ("", ""),
    ],
)
def test_reference_form(text: str, form: str) -> None:
    assert reference_form(text) == form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("\\text{42}", "42"),
        ("x=42", "42"),
        ("xyz=42", "xyz=42"),
        ("42\\%", "42"),
        ("5 cm", "5"),
        ("0.5", "\\frac{1}{2}"),
        ("3/4", "\\frac{3}{4}"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("\\begin{bmatrix}1\\end{bmatrix}", "\\begin{pmatrix}1\\end{pmatrix}"),
        ("90^{\\circ}", "90"),
        ("", ""),
    ],
)
def test_mathd_form(text: str, form: str) -> None:
    assert mathd_form(text) == form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1,234", "1234"),
        ("42.0", "42"),
        ("\\frac{1}{2}", "1/2"),
        ("\\frac{\\sqrt{3}}{2}", "sqrt(3)/2"),
        ("7 3/4", "7+3/4"),
        ("2 million", "2*10^6"),
        ("5 meters", "5"),
        ("1 or 2", "1,2"),
        ("\\text{YES}", "yes"),
        ("2\\pi", "2pi"),
        ("50\\%", "50"),
    ],
)
def test_plain_form(text: str, form: str) -> None:
    assert plain_form(text) == form


def test_elements_of_tuples() -> None:
    assert elements("(1,2)") == ["1", "2"]
    assert elements("[0,inf)") == ["0", "inf"]
    assert elements("1,234") == ["1234"]
    assert elements("1,2") == ["1,2"]
    assert elements("((1,2),3)") == ["((1,2),3)"]
    assert elements("") == []


def test_integers() -> None:
    assert [integer(text) for text in ("42", "1,234", "42.0", "-3.", "42.5", "x", "", "1e3", "9" * 400)] == [
        42, 1234, 42, -3, None, None, None, 1000, None,
    ]  # fmt: skip


def test_only_long_repetition_is_repetition() -> None:
    assert repetitive("ab" * 100)
    assert not repetitive("ab" * 10)
    assert not repetitive("".join(chr(33 + (k * k) % 89) + str(k) for k in range(60)))
