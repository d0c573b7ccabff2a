from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.data.words import words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"Find $x^2 \leq 4$.", "find x² ≤ 4"),
        (r"\(\dfrac{1}{2}\)", r"$$ \frac 1 2 $$"),
        (r"\left( a + b \right)", "(a+b)"),
        ("There are 1,000 well-known primes", r"there are 1000 well known PRIMES!?"[:-2]),
        (r"1{,}000\,000", "1000000"),
        ("  spaced \n\t out ", "spaced out"),
        (r"\sin 60^\circ", "sin 60^°"),
        ("ﬁnd ｘ", "find x"),
        (r"3 \times 4", "3×4"),
        (r"\text{if } n", "if n"),
    ],
)
def test_spellings_of_one_question(one: str, other: str) -> None:
    assert words(one) == words(other) != []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x+1", "x-1"),
        ("x^2", "x2"),
        ("n!", "n"),
        ("3.14", "3 14"),
        ("a < b", "a > b"),
        ("2 - 1", "2 1"),
        (r"\sin x", r"\cos x"),
    ],
)
def test_different_questions_stay_different(one: str, other: str) -> None:
    assert words(one) != words(other)


@given(st.text())
def test_any_text_has_words_and_they_are_their_own_words(text: str) -> None:
    spelled = words(text)
    assert all(word and word == word.casefold() and not word.isspace() for word in spelled)
    assert words(text.upper()) == words(text.upper().casefold()) or "ı" in text or "İ" in text.upper()


@given(
    st.lists(st.sampled_from(["find", "x", "12", "+", "the", "sum"]), max_size=20),
    st.sampled_from([" ", "  ", "\n", " , ", ". "]),
)
def test_spacing_and_punctuation_do_not_count(spelled: list[str], between: str) -> None:
    assert words(between.join(spelled)) == spelled
