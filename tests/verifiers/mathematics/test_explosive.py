from __future__ import annotations

import time

import pytest

from delta_lightning.verifiers.mathematics.explosive import beyond, expands, explosive

REFUSED = [
    ("9^{9^{9^9}}-x", "tower"),
    ("2^{2^{30}}", "tower"),
    ("10^{10^{10}}", "tower"),
    ("x^x^x^x^x^x^x", "tower"),
    ("\\lfloor 10^{10^6} \\rfloor", "tower"),
    ("2^{1000000}", "huge power"),
    ("1.5^{100000}", "huge power"),
    ("(x+1)^{99999}", "huge power"),
    ("10000000!", "factorial"),
    ("((3!)!)!", "factorial"),
    ("9!!!!!", "factorial"),
    ("(9^9)!", "factorial"),
    ("\\binom{1000000000}{500000000}", "binomial"),
    ("\\prod_{i=1}^{15000} i", "sum or product"),
    ("(" * 300 + "1" + ")" * 300, "nested"),
    ("\\sin " * 60 + "x", "functions"),
    ("+".join(f"{k}x^{{{k}}}" for k in range(200)), "terms"),
    ("1," * 300, "terms"),
    ("=b" * 300, "terms"),
    ("|" * 51 + "x" + "|" * 51, "terms"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_explodes_is_refused(text: str, reason: str) -> None:
    found = explosive(text)
    assert found is not None and reason in found


@pytest.mark.parametrize(
    "text",
    [
        "42", "2^{2025}", "2^{2025}-1", "10^{100}", "100!", "9!!", "\\frac{10!}{7!}", "\\binom{2025}{3}", "(2n)!", "2^{3^{4}}",
        "2^{2^{10}}", "2^{2^{2^{2}}}", "x^{99}", "(x+1)^{10}", "(x+1)^{2025}", "e^{e^{x}}", "\\sqrt{2+\\sqrt{2+\\sqrt{2}}}",
        "\\frac{1}{1+\\frac{1}{1+\\frac{1}{2}}}", "|x|+|y|", "\\{1,2,3,4,5,6,7,8,9,10\\}", "\\sum_{k=1}^{n} k", "",
    ],
)  # fmt: skip
def test_what_people_write_passes(text: str) -> None:
    assert explosive(text) is None


def test_powers_of_sums_are_only_compared_by_form() -> None:
    assert expands("(x+1)^{2025}")
    assert expands("(1+\\sqrt{2})^{500}")
    assert not expands("(x+1)^{10}")
    assert not expands("x^{2025}+1")
    assert not expands("(xy)^{2025}")


@pytest.mark.parametrize(
    "text", ["9^{9^{9^9}}", "9^{9^9}", "10^{10^{10}}", "10^{1000}", "10000000!", "1000!", "22^{999999999999}"]
)
def test_size_alone_decides(text: str) -> None:
    assert beyond(text)


@pytest.mark.parametrize(
    "text",
    [
        "10^{100}",
        "2^{100}",
        "1^{9^{9^9}}",
        "0^{99999}",
        "999!",
        "9^{9}",
        "x^{9999}",
        "-10^{9999}",
        "10^{-9999}",
        "9^{9^9}+1",
        "2^{3^{4}}",
        "42",
        "",
    ],
)
def test_size_alone_does_not_decide(text: str) -> None:
    assert not beyond(text)


@pytest.mark.parametrize(
    "text",
    ["{" * 100_000, "^" * 100_000, "9^{" * 50_000, "1!" * 50_000, "\\prod" * 20_000, "9" * 100_000 + "!", "(((" + "1" * 50_000],
)
def test_linear_on_any_text(text: str) -> None:
    began = time.monotonic()
    explosive(text)
    beyond(text)
    expands(text)
    assert time.monotonic() - began < 5
