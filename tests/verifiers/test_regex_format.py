from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status
from delta_lightning.verifiers.pool import VerifierPool
from delta_lightning.verifiers.regex_format import RegexFormat
from support.verdicts import completion_of, prompt_with


def fits(verifier: RegexFormat, text: str) -> bool:
    verdict = verifier.score(prompt_with("unread"), completion_of(text))
    assert verdict.status in (Status.CORRECT, Status.INCORRECT) and verdict.reward == float(verdict.status is Status.CORRECT)
    return verdict.status is Status.CORRECT


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<think>a\nb</think>\nSo \\boxed{3}.", True),
        ("<think></think>\\boxed{}", True),
        ("a <think></think>\\boxed{3}", False),
        ("<think>\\boxed{3}", False),
        ("<think></think>", False),
        ("", False),
    ],
)
def test_the_default_is_thinking_then_a_box(text: str, wanted: bool) -> None:
    assert fits(RegexFormat(), text) is wanted


def test_full_and_search() -> None:
    assert not fits(RegexFormat(pattern="b+"), "abb") and fits(RegexFormat(pattern="b+"), "bb")
    assert fits(RegexFormat(pattern="b+", match="search"), "abb")
    assert fits(RegexFormat(pattern="^b$", match="search"), "a\nb\nc")  # at lines


def test_too_long_is_not_read() -> None:
    verifier = RegexFormat(pattern="a*", max_chars=3)
    assert fits(verifier, "aaa") and not fits(verifier, "aaaa")


@pytest.mark.parametrize(
    "fields",
    [
        {
            "pattern": "(",
        },
        {"pattern": "a{99999999999}"},
        {"match": "some"},
        {"max_chars": 0},
    ],
)
def test_refusals(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"RegexFormat.{next(iter(fields))}"):
        RegexFormat(**fields)  # type: ignore[arg-type]


def test_it_reads_no_reference() -> None:
    assert RegexFormat().reference_fields() == frozenset() and RegexFormat().refuse_reference({}) is None


def test_catastrophic_backtracking_costs_one_timeout() -> None:
    with VerifierPool(RegexFormat(pattern="(a+)+b"), workers=1, timeout=0.5) as pool:
        for key, text in enumerate(["a" * 60, "aab", "c"]):
            pool.submit(key, prompt_with(""), completion_of(text))
        statuses = {key: verdict.status for key, verdict in pool.drain()}
    assert statuses == {0: Status.TIMEOUT, 1: Status.CORRECT, 2: Status.INCORRECT}
