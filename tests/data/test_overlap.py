"""Shares of evaluation questions that a text covers by common n-grams, against a brute-force count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.data.overlap import NgramIndex

LETTERS = st.lists(st.sampled_from("abc"), max_size=12)


def brute_force(question: list[str], text: list[str], n: int) -> float:
    """The formula of the docstring, position by position."""
    if len(question) < n:
        return float(question == text)
    covered = set()
    for start in range(len(question) - n + 1):
        window = question[start : start + n]
        if any(text[place : place + n] == window for place in range(len(text) - n + 1)):
            covered |= set(range(start, start + n))
    return len(covered) / len(question)


@given(st.lists(LETTERS, max_size=4), LETTERS, st.integers(1, 5))
def test_the_shares_are_those_of_the_formula(questions: list[list[str]], text: list[str], n: int) -> None:
    index = NgramIndex(n, [("set", str(place), " ".join(words)) for place, words in enumerate(questions)])
    found = {match.question.id: match.share for match in index.matches(" ".join(text))}
    wanted = {str(place): brute_force(words, text, n) for place, words in enumerate(questions) if words}
    assert found == {key: share for key, share in wanted.items() if share > 0}
    best = index.best(" ".join(text))
    assert (None if best is None else best.share) == max(found.values(), default=None)


@given(LETTERS.filter(bool), st.integers(1, 15))
def test_a_question_covers_itself(words: list[str], n: int) -> None:
    match = NgramIndex(n, [("set", "1", " ".join(words))]).best(" ".join(words).upper())
    assert match is not None and match.share == 1


@given(LETTERS, LETTERS, LETTERS, st.integers(1, 4))
def test_text_around_it_takes_nothing_away(question: list[str], before: list[str], after: list[str], n: int) -> None:
    """Of a question of n words or more. Shorter ones are matched as a whole only."""
    index = NgramIndex(n, [("set", "1", " ".join(question))])
    match = index.best(" ".join([*before, *question, *after]))
    if len(question) >= n:
        assert match is not None and match.share == 1
    elif match is not None:
        assert [*before, *question, *after] == question


def test_the_shared_ngram_is_named_and_empty_questions_are_no_match() -> None:
    index = NgramIndex(3, [("math", "a", "Find the sum of all primes"), ("math", "b", "...")])
    match = index.best("What is the SUM of, all integers?")
    assert match is not None and match.gram == "the sum of" and match.share == 4 / 6 and match.question.id == "a"
    assert len(index.questions) == 1 and index.best("") is None
