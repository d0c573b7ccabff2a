"""Word n-grams that a text shares with evaluation questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from delta_lightning.data.words import words

Gram = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One evaluation question: the name of its set, its id there, its text and how many words it has."""

    name: str
    id: str
    text: str
    length: int


@dataclass(frozen=True, kw_only=True)
class Match:
    """An evaluation question, the share of its words that the text covers, and the first n-gram that they share."""

    question: Question
    share: float
    gram: str


class NgramIndex:
    """Where the n-grams of evaluation questions stand.

    With words w_1 .. w_m of an evaluation question e (see `words`), its n-grams are g_i = (w_i, ..., w_{i+n-1}),
    i = 1 .. m-n+1. The share of e that a text t covers is

        s(t, e) = |{ j : j in [i, i+n-1] for some i with g_i in the n-grams of t }| / m,    in [0, 1].

    A question of fewer than n words has itself as its only n-gram, and is matched by a text with the same words and no others:
    s is 1 or 0. Memory is that of the evaluation questions alone: about 200 bytes for each of their words.

    Args:
        n: words of an n-gram. questions: (name of the set, id, text) of every evaluation question; those without words are left
            out.
    """

    def __init__(self, n: int, questions: Iterable[tuple[str, str, str]]) -> None:
        self._n = n
        self.questions: list[Question] = []
        self._places: dict[Gram, list[tuple[int, int]]] = {}  # n-gram -> (question, first word)
        self._short: dict[Gram, list[int]] = {}
        for name, identity, text in questions:
            spelled = words(text)
            if not spelled:
                continue
            number = len(self.questions)
            self.questions.append(Question(name=name, id=identity, text=text, length=len(spelled)))
            if len(spelled) < n:
                self._short.setdefault(tuple(spelled), []).append(number)
            for place, gram in enumerate(ngrams(spelled, n)):
                self._places.setdefault(gram, []).append((number, place))

    def best(self, text: str) -> Match | None:
        """The question of which the text covers the largest share, the first of several; None if it covers none."""
        found = self.matches(text)
        return max(found, key=lambda match: match.share, default=None)

    def matches(self, text: str) -> list[Match]:
        """Every question of which the text covers a word, in the order of the questions."""
        spelled = words(text)
        places: dict[int, set[int]] = {}
        first: dict[int, Gram] = {}
        for gram in dict.fromkeys(ngrams(spelled, self._n)):
            for number, place in self._places.get(gram, ()):
                places.setdefault(number, set()).update(range(place, place + self._n))
                first.setdefault(number, gram)
        for number in self._short.get(tuple(spelled), ()):
            places[number], first[number] = set(range(len(spelled))), tuple(spelled)
        return [
            Match(
                question=self.questions[number], gram=" ".join(first[number]),
                share=len(places[number]) / self.questions[number].length,
            )
            for number in sorted(places)
        ]  # fmt: skip


def ngrams(spelled: Sequence[str], n: int) -> Iterable[Gram]:
    """All runs of n words."""
    return (tuple(spelled[start : start + n]) for start in range(len(spelled) - n + 1))
