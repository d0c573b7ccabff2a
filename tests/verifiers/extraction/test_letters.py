from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.verifiers.extraction.letters import choice_letter


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"\boxed{C}", "C"),
        (r"The answer is A. Wait: \boxed{\text{(b)}}", "B"),
        (r"\boxed{D. Paris}", "D"),
        (r"\boxed{42} so the answer is E", "E"),
        (r"\boxed{A, C}", None),
        ("The answer is (C).", "C"),
        ("The answer is [c]", "C"),
        (r"The answer is \(C\)", "C"),
        (r"The answer is $\text{C}$", "C"),
        ("**Answer:** C", "C"),
        ("Answer: **C**", "C"),
        ("The correct answer is: **D**", "D"),
        ("The best answer is\n\nC", "C"),
        ("The answer is: C) Paris", "C"),
        ("Final answer: option J", "J"),
        ("Answer: the correct option is C", "C"),
        ("The answer is A because of that", "A"),
        ("The answer is C because of that", "C"),
        ("The answer is B. No, the answer is C.", "C"),
        ("The answer is C. The answer is clear.", "C"),
        ("The answer is A, B is wrong", "A"),
        ("C", "C"),
        ("(c)", "C"),
        (" **C.** ", "C"),
        ("C) Paris", "C"),
        ("Let me think.\nC", "C"),
        ("Let me think.\n(C).", "C"),
        # no letter, or more than one
        ("", None),
        ("A cat has a BIG house", None),
        ("answer is A good one", None),
        ("The answer is I think C", None),
        ("The answer is a matter of taste", None),
        ("The answer is c", None),
        ("The answer is Cats", None),
        ("The answer is B-flat", None),
        ("The answer is A's", None),
        ("The answer is A or B", None),
        ("The answer is (A), (B), and (C)", None),
        ("The answer is A/B", None),
        ("The answer is not (C)", None),
        ("The answer is B. Sorry, the answer is not B", None),
        ("The answer isn't C", None),
        ("The answer is K", None),
        ("B) is wrong, so it must be C.", None),
        ("First.\nB) is wrong", None),
        ("A. Rome B. Paris", None),
        ("AB", None),
    ],
)
def test_what_a_text_names(text: str, wanted: str | None) -> None:
    assert choice_letter(text) == wanted


@given(
    st.text(alphabet=string.ascii_letters, min_size=2, max_size=12), st.sampled_from(["{}", "The answer is {}", "Answer: {}"])
)
def test_no_letter_inside_a_word(word: str, frame: str) -> None:
    if word.lower() in ("not", "neither", "the", "is"):
        return
    assert choice_letter(frame.format(word)) is None


@pytest.mark.parametrize(
    "text", ["answer is " * 50_000, "(" * 500_000, "A) " * 150_000, "answer" + " " * 500_000, "\\boxed{" * 70_000]
)
def test_half_a_megabyte_takes_no_time(text: str) -> None:
    started = time.perf_counter()
    assert choice_letter(text) is None
    assert time.perf_counter() - started < 5
