from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status
from delta_lightning.verifiers.mathematics.comparison import TooHardError
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.mathematics.staged import Staged
from support.verdicts import completion_of, prompt_with

TABLE = Path(__file__).with_name("mathematics.txt")


def _decided() -> list[tuple[str, str, bool]]:
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("# ")]
    found = []
    for line in rows:
        mark, pair = line[:2], line[2:].split(" <> ")
        assert mark in ("= ", "x ") and len(pair) == 2, line
        found.append((pair[0], pair[1], mark == "= "))
    return found


DECIDED = _decided()


def test_the_table_is_large_and_decides_both_ways() -> None:
    assert len({(gold, answer) for gold, answer, _ in DECIDED}) == len(DECIDED) >= 520
    assert sum(equal for _, _, equal in DECIDED) >= 200
    assert sum(not equal for _, _, equal in DECIDED) >= 200


@pytest.mark.parametrize(("gold", "answer", "equal"), DECIDED)
def test_decided_by_hand(gold: str, answer: str, equal: bool) -> None:
    verdict = MathVerifier().score(prompt_with(gold), completion_of(f"so it is \\boxed{{{answer}}}."))
    assert (verdict.status, verdict.reward) == ((Status.CORRECT, 1.0) if equal else (Status.INCORRECT, 0.0)), verdict.reason


@pytest.mark.parametrize("gold", sorted({gold for gold, _, _ in DECIDED}))
def test_every_reference_of_the_table_can_be_used_and_equals_itself(gold: str) -> None:
    assert Staged().usable(gold)
    assert Staged().same(gold, gold) is True


@pytest.mark.parametrize(
    ("settings", "gold", "answer", "equal"),
    [
        (Staged(digits=4), "\\frac{1}{3}", "0.3333", True),
        (Staged(digits=4), "\\frac{1}{3}", "0.333", False),
        (Staged(digits=4), "\\sqrt{2}", "1.4142", True),
        (Staged(digits=4), "\\sqrt{2}", "1.414", False),
        (Staged(digits=2), "(\\frac{3}{5},\\frac{8}{3}]", "(0.6,2.6667]", True),
        (Staged(digits=2), "\\frac{1}{8}", "0.13", False),  # a decimal writes it out, so it must
        (Staged(digits=2), "42", "42.001", False),
        (Staged(digits=8), "\\frac{1}{3}", "0.333333", False),
        (Staged(percent="either"), "42", "42\\%", True),
        (Staged(percent="either"), "0.42", "42\\%", True),
        (Staged(percent="either"), "42", "4200\\%", True),
        (Staged(percent="either"), "42", "43\\%", False),
        (Staged(percent="either"), "42\\%", "0.42", True),
        (Staged(percent="exact"), "42\\%", "42", False),
        (Staged(percent="exact"), "42\\%", "0.42", False),
        (Staged(percent="exact"), "42\\%", "42\\%", True),
        (Staged(variables="interchangeable"), "f(x)", "f(y)", True),
        (Staged(variables="interchangeable"), "x+1", "y+1", True),
        (Staged(variables="interchangeable"), "x+1", "y+2", False),
        (Staged(variables="named"), "x+1", "y+1", False),
        (Staged(relations="reference_set"), "[0,1]", "0 \\le x \\le 1", False),
        (Staged(relations="reference_set"), "0 \\le x \\le 1", "[0,1]", True),
        (Staged(relations="any_form"), "[0,1]", "0 \\le x \\le 1", True),
        (Staged(chains="last_link"), "42", "41=42", True),
        (Staged(chains="last_link"), "42", "42=41", False),
    ],
)
def test_settings(settings: Staged, gold: str, answer: str, equal: bool) -> None:
    assert settings.same(gold, answer) is equal


@pytest.mark.parametrize("digits", [0, 13])
def test_range_of_digits(digits: int) -> None:
    with pytest.raises(ConfigError, match="digits"):
        Staged(digits=digits)


def test_a_reference_without_meaning_is_no_verdict() -> None:
    assert Staged().same("\\frac{", "42") is None
    assert Staged().same("", "42") is None


def test_what_would_explode_is_wrong_where_size_decides_and_not_tried_otherwise() -> None:
    assert Staged().same("42", "9^{9^{9^9}}") is False
    assert Staged().same("42", "10000000!") is False
    assert Staged().same("9^{9^{9^9}}", "9^{9^{9^{9}}}") is True  # as a string
    with pytest.raises(TooHardError, match="tower"):
        Staged().same("42", "9^{9^{9^9}} - x")
    with pytest.raises(TooHardError, match="tower"):
        Staged().same("\\sqrt{2}", "9^{9^{9^9}}")
    assert not Staged().usable("9^{9^{9^9}} - x")
