from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status
from delta_lightning.verifiers.extraction.excerpts import WholeText
from delta_lightning.verifiers.numeric import NumericVerifier, quantity
from support.verdicts import completion_of, prompt_with


def right(gold: object, answer: str, **fields: float | None) -> bool:
    verdict = NumericVerifier(extraction=WholeText(), **fields).score(prompt_with(gold), completion_of(answer))  # type: ignore[arg-type]
    assert verdict.status in (Status.CORRECT, Status.INCORRECT) and verdict.reward == float(verdict.status is Status.CORRECT)
    return verdict.status is Status.CORRECT


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1,234,567", 1234567, ""),
        ("1 234", 1234, ""),
        ("1_000", 1000, ""),
        ("12.50", Fraction(25, 2), ""),
        (".5", Fraction(1, 2), ""),
        ("5.", 5, ""),
        ("+5", 5, ""),
        ("\u22125", -5, ""),
        ("- 5", -5, ""),
        ("1.5e-3", Fraction(3, 2000), ""),
        ("2E5", 200000, ""),
        (r"1.2 \times 10^{-3}", Fraction(3, 2500), ""),
        ("3 x 10^2", 300, ""),
        ("3*10**2", 300, ""),
        ("10^{5}", 100000, ""),
        ("3/4", Fraction(3, 4), ""),
        (r"-\frac{3}{4}", Fraction(-3, 4), ""),
        (r"\dfrac{ 1 }{ 2 }", Fraction(1, 2), ""),
        ("$42$", 42, ""),
        ("$5.00", 5, "$"),
        ("-\u20ac3", -3, "\u20ac"),
        ("50%", 50, "%"),
        (r"50 \%", 50, "%"),
        ("50 percent", 50, "%"),
        ("5 m/s^2", 5, "m/s^2"),
        ("9.81 m s^{-2}", Fraction(981, 100), "ms^{-2}"),
        (r"5\text{ cm}", 5, "cm"),
        ("3 cm2", 3, "cm2"),
        (r"90^\circ", 90, "\u00b0"),
        ("5 cm.", 5, "cm"),
    ],
)
def test_numbers(text: str, value: Fraction | int, unit: str) -> None:
    found = quantity(text)
    assert found is not None and found.value == value and found.unit == unit


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "NaN",
        "1,2345",
        "1,23",
        "1,234 567",
        "--5",
        "1e999",
        "1e401",
        "42 or 43",
        "42, 43",
        "41 = 42",
        "[42, 42]",
        "1/0",
        r"\frac{1}{0}",
        "2+2",
        "2^3",
        "1.2.3",
        "0x10",
        "\uff11\uff12",
        "\u0661",
        "1" * 201,
        "5 (about)5",
        "$5 cm",
        "__import__('os')",
        "1\x00",
        "1e",
        "10^",
    ],
)
def test_no_numbers(text: str) -> None:
    found = quantity(text)
    assert found is None or found.unit not in ("", "%")
    assert not right(1, text) if text.strip() else True


@pytest.mark.parametrize(
    ("gold", "answer", "fields", "wanted"),
    [
        ("0.3", "0.30", {}, True),
        ("0.3", "0.300000001", {}, False),
        (0.1, "1/10", {}, True),
        (2, "2.0", {}, True),
        ("10", "10.5", {"absolute": 0.5}, True),
        ("10", "10.5000001", {"absolute": 0.5}, False),
        ("0.3", "0.4", {"absolute": 0.1}, True),
        ("0", "0.01", {"relative": 0.5}, False),
        ("200", "202", {"relative": 0.01}, True),
        ("200", "202.01", {"relative": 0.01}, False),
        ("-200", "-198", {"relative": 0.01}, True),
        ("9.8066", "9.81", {"digits": 3}, True),
        ("9.8066", "9.80", {"digits": 3}, False),
        ("0.00123", "0.0012", {"digits": 2}, True),
        ("99.96", "100", {"digits": 3}, True),
        ("0", "0.1", {"digits": 1}, False),
        ("1000", "1000.5", {"digits": 4}, True),
        ("5 cm", "5", {}, True),
        ("5 cm", "5cm", {}, True),
        ("5 cm", "5 m", {}, False),
        ("5", "5 cm", {}, False),
        ("5", "$5", {}, False),
        ("$5", "5", {}, True),
        ("50%", "50%", {}, True),
        ("50%", "50", {}, True),
        ("50%", "0.5", {}, True),
        ("50%", "0.5%", {}, False),
        ("0.5", "50%", {}, True),
        ("50", "50%", {}, False),
        ("42", r"4200\%", {}, True),
        ("50%", "0.51", {"absolute": 1.0}, True),
        ("50%", "0.52", {"absolute": 1.0}, False),
        ("5 cm", "500%", {}, False),
        (10**30, "1e30", {}, True),
        (1e-7, "1e-7", {}, True),
        (10**17 + 1, "100000000000000000", {}, False),
    ],
)
def test_tolerance_units_and_percent(gold: object, answer: str, fields: dict[str, float], wanted: bool) -> None:
    assert right(gold, answer, **fields) is wanted


@given(st.fractions(min_value=-(10**6), max_value=10**6), st.fractions(min_value=-2, max_value=2))
def test_a_bound_is_a_bound(gold: Fraction, offset: Fraction) -> None:
    verifier = NumericVerifier(absolute=1.5)
    wanted, got = quantity(str(gold)), quantity(str(gold + offset))
    assert wanted is not None and got is not None
    assert verifier.same(wanted, got) is (abs(offset) <= Fraction(3, 2))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_itself(value: float) -> None:
    assert right(value, repr(value))


def test_where_the_answer_stands() -> None:
    verifier = NumericVerifier()
    assert verifier.score(prompt_with(7), completion_of(r"So \boxed{7}")).status is Status.CORRECT
    assert verifier.score(prompt_with(7), completion_of("7")).status is Status.NO_ANSWER


@pytest.mark.parametrize("answer", [None, True, "", "seven", "nan", float("nan"), float("inf"), [], [7], {}, "1e401", 10**500])
def test_references_that_cannot_be_used(answer: object) -> None:
    assert NumericVerifier().refuse_reference({"answer": answer}) is not None
    assert NumericVerifier().score(prompt_with(answer), completion_of(r"\boxed{7}")).status is Status.ERROR


@pytest.mark.parametrize(
    "fields",
    [{"absolute": -1.0}, {"relative": float("inf")}, {"relative": float("nan")}, {"digits": 0}, {"digits": 101}, {"field": ""}],
)
def test_fields_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"NumericVerifier.{next(iter(fields))}"):
        NumericVerifier(**fields)  # type: ignore[arg-type]


def test_nothing_takes_long() -> None:
    started = time.perf_counter()
    texts = ["1" + r"\aa" * 66 + "!", "1" + "^2" * 99 + "!", "1" + "m2" * 90 + "!"]
    for text in (*texts, "1,111" * 40, r"\frac{" * 33, "1e400", " " * 199 + "1"):
        quantity(text)
    assert time.perf_counter() - started < 2
