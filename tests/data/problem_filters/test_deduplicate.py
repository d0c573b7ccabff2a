from __future__ import annotations

from delta_lightning.data import Deduplicate
from delta_lightning.interfaces import FilterContext
from support.problems import problem

CONTEXT = FilterContext(count_tokens=lambda _: [])
TEXTS = ["What is 1+1?", "what is 1 + 1", "What is 1-1?", "What is 1+1?", "Else"]


def test_the_first_of_each_question_is_kept() -> None:
    problems = [problem(text, number) for number, text in enumerate(TEXTS)]
    assert Deduplicate().open(CONTEXT)(problems) == [True, False, True, False, True]
    assert Deduplicate(exact=True).open(CONTEXT)(problems) == [True, True, True, False, True]
    assert not Deduplicate().row_local()
