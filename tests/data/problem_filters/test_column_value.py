from __future__ import annotations

import pytest

from delta_lightning.data import ColumnValue
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import FilterContext
from support.problems import problem

CONTEXT = FilterContext(count_tokens=lambda _: [])
ROWS = [problem("q", 0, topic="algebra"), problem("q", 1, topic="geometry"), problem("q", 2, "other", topic="geometry")]


def test_keep_and_drop() -> None:
    assert ColumnValue(column="topic", keep=("algebra",)).open(CONTEXT)(ROWS) == [True, False, False]
    assert ColumnValue(column="topic", drop=("geometry",)).open(CONTEXT)(ROWS) == [True, False, False]
    assert ColumnValue(column="topic", drop=("geometry",), source="other").open(CONTEXT)(ROWS) == [True, True, False]
    assert ColumnValue(column="year", keep=("2024",)).open(CONTEXT)([problem("q", 0, year=2024)]) == [True]


@pytest.mark.parametrize("values", [{}, {"keep": ("a",), "drop": ("b",)}])
def test_refusals(values: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigError, match="either keep or drop"):
        ColumnValue(column="topic", **values)
    with pytest.raises(ConfigError, match=r"ColumnValue\.column: .*got 'level'"):
        ColumnValue(column="level", keep=("1",)).open(CONTEXT)(ROWS)
