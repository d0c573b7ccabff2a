from __future__ import annotations

import pytest

from delta_lightning.data import Difficulty
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import FilterContext
from support.problems import problem

CONTEXT = FilterContext(count_tokens=lambda _: [])


def test_bounds_belong_to_what_is_kept_and_numbers_may_be_texts() -> None:
    keep = Difficulty(low=3, high=7.5).open(CONTEXT)
    values = [2.9, 3, "5", 7.5, 7.6, "1e1"]
    assert keep([problem("q", n, difficulty=value) for n, value in enumerate(values)]) == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_one_data_set_of_several() -> None:
    keep = Difficulty(column="pass_rate", low=0.1, source="deepmath").open(CONTEXT)
    assert keep([problem("q", 0, "deepmath", pass_rate=0), problem("q", 1, "gsm8k")]) == [False, True]


@pytest.mark.parametrize("value", ["hard", None, True, float("nan")])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="'difficulty' of problem 7: wanted a number"):
        Difficulty().open(CONTEXT)([problem("q", 7, difficulty=value)])


def test_a_missing_column_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"Difficulty\.column: wanted a field of problem 0: one of 'answer', 'topic'"):
        Difficulty().open(CONTEXT)([problem("q", 0, topic="x")])
    with pytest.raises(ConfigError, match="low <= high"):
        Difficulty(low=2, high=1)
