from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.verifiers.mathematics.latex import parsed
from delta_lightning.verifiers.mathematics.numerals import numeral
from delta_lightning.verifiers.mathematics.samples import different_in_value
from delta_lightning.verifiers.mathematics.tidy import tidy

TABLE = Path(__file__).with_name("mathematics.txt")


@pytest.mark.parametrize(
    ("left", "right", "different"),
    [
        ("\\sqrt{2}", "\\sqrt{3}", True),
        ("\\sqrt{12}", "2\\sqrt{3}", False),
        ("x+1", "x+2", True),
        ("(x+1)^2", "x^2+2x+1", False),
        ("\\sqrt{x^2}", "|x|", False),
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}", True),
        ("2^{-99}", "2^{-98}", True),
        ("\\frac{1}{3}", "0.333333", False),
        ("\\frac{1}{3}", "0.3333", True),
        ("\\{1,\\sqrt{2}\\}", "\\{\\sqrt{2},1\\}", False),
        ("\\{1,2\\}", "\\{1,3\\}", True),
        ("(1,2,3)", "(1,3,2)", True),
        ("x", "y", False),  # names are the comparison's affair
        ("50\\%", "\\frac{1}{2}", False),
        ("f(x)", "2x", False),  # no value
        ("x<2", "x<3", False),
        ("[0,1]", "[0,2]", False),
    ],
)
def test_values(left: str, right: str, different: bool) -> None:
    assert different_in_value(parsed(left), parsed(right), 6) is different


def test_digits_widen_what_a_decimal_may_be() -> None:
    assert not different_in_value(parsed("\\sqrt{2}"), parsed("1.4142"), 4)
    assert not different_in_value(parsed("\\sqrt{2}"), parsed("1.414"), 3)
    assert different_in_value(parsed("\\sqrt{2}"), parsed("1.414"), 6)


def test_nothing_that_math_verify_calls_equal_is_told_apart_but_what_a_hand_decided() -> None:
    """On every pair of the table that parses: told apart means wrong."""
    checked = 0
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("= "):
            continue
        sides = [tidy(side) for side in line[2:].split(" <> ")]
        if all(numeral(side) for side in sides):  # an earlier stage reads `1 000`
            continue
        gold, answer = (parsed(side) for side in sides)
        if (
            gold is not None
            and answer is not None
            and not set("%:_=°^~") & set(line[2:])
            and "text" not in line
            and "mod" not in line
        ):
            checked += 1
            assert not different_in_value(gold, answer, 6), line
    assert checked > 60
