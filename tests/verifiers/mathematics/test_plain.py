from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.verifiers.mathematics.plain import to_latex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("−5", "-5"),
        ("½", "\\frac{1}{2}"),
        ("3¾", "3\\frac{3}{4}"),
        ("x²", "x^{2}"),
        ("10⁻³", "10^{-3}"),
        ("x₁₂", "x_{12}"),
        ("√2", "\\sqrt{2}"),
        ("√12", "\\sqrt{12}"),
        ("√(x+1)", "\\sqrt{x+1}"),
        ("∛8", "\\sqrt[3]{8}"),
        ("2π", "2\\pi "),
        ("x≤5", "x\\le 5"),
        ("（1，2）。", "(1,2)."),
        ("４２", "42"),
        ("５％", "5\\%"),
        ("90°", "90^\\circ "),
        ("4\u200b2", "42"),
        ("人", "人"),  # what it does not know stays
    ],
)
def test_unicode_becomes_latex(text: str, latex: str) -> None:
    assert to_latex(text) == latex


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_stays(text: str) -> None:
    assert to_latex(text) is text
