from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.verifiers.extraction.boxed import after_thinking, last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{41}, no wait, \fbox{42}", "42"),
        (r"\fbox{42} then \boxed{41}", "41"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {7}", "7"),
        ("\\boxed\n{7}", "7"),
        (r"\boxed{}", ""),
        (r"\boxed{a} \boxed{}", ""),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),  # an escaped brace is no brace
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{a \\ {b}}", r"a \\ {b}"),
        (r"\boxed{a\\}", "a\\\\"),  # the backslash of the line break does not escape the brace
        (r"\boxed{5} and \boxed{6", "5"),  # truncated: the last balanced one
        (r"\boxed{6", None),
        (r"\boxed{{6}", None),
        (r"\boxed{x = \boxed{5}}", "5"),  # nested: the last to open
        (r"\boxed{x = \boxed{5} + 1", "5"),
        (r"\boxed{1 \boxed{2", None),
        (r"}} \boxed{3} {{", "3"),
        (r"{{ \boxed{3}", "3"),
        (r"\\boxed{4}", "4"),  # escaped twice
        (r"\\\boxed{4}", "4"),
        (r"boxed{4}", None),
        (r"\boxedx{4}", None),
        (r"\boxed", None),
        (r"\boxed 4", None),
        ("", None),
        ("\\", None),
    ],
)
def test_last_boxed(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{" * 100_000, None),
        ("{" * 500_000 + r"\boxed{1}", "1"),
        (r"\boxed{1}" + "}" * 500_000, "1"),
        (r"\boxed{1}" + r"\boxed{" * 100_000, "1"),
        (r"\boxed{" + "{" * 100_000 + "}" * 100_000 + "}", "{" * 100_000 + "}" * 100_000),
        ("\\" * 1_000_000, None),
        (r"\boxed" + " " * 1_000_000, None),
        (r"\boxed " * 150_000, None),
        (r"\boxed{7}" * 100_000, "7"),
        ("\x00\ud800\U0001f600" * 300_000 + r"\boxed{8}", "8"),
    ],
    ids=lambda value: "" if value is None else f"{value[:9]}x{len(value)}",
)
def test_linear_time_on_hostile_text(text: str, answer: str | None) -> None:
    start = time.perf_counter()
    assert last_boxed(text) == answer
    assert time.perf_counter() - start < 3.0  # a quadratic scan of these takes minutes


@given(st.text(alphabet=st.sampled_from("\\{}bo xed1"), max_size=60), st.text(alphabet="abc{}", max_size=10))
def test_a_balanced_box_at_the_end_wins(noise: str, content: str) -> None:
    balanced = "{" + content.replace("{", "").replace("}", "") + "}"
    # The space keeps a trailing backslash of the noise from escaping the box's own.
    assert last_boxed(noise + " " + r"\boxed{" + balanced + "}") == balanced


@given(st.text(max_size=200))
def test_any_text_gives_an_answer_that_stands_in_it(text: str) -> None:
    answer = last_boxed(text)
    assert answer is None or "{" + answer + "}" in text


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("<think>a", None),
        ("a", None),
        ("a</think>", ""),
    ],
)
def test_after_thinking(text: str, rest: str | None) -> None:
    assert after_thinking(text) == rest
