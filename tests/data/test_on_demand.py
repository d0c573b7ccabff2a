from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.data.on_demand import OnDemand, check_split
from delta_lightning.data.table import Table
from delta_lightning.errors import ConfigError
from delta_lightning.types import Problem


class Counted(OnDemand):
    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 5

    def at(self, index: int) -> Problem:
        self.read.append(index)
        return Problem(id=str(index), question="q", source="s", reference={})


def test_only_what_is_asked_for_is_read() -> None:
    rows = Counted()
    assert rows[3].id == "3" and rows.read == [3]
    assert [row.id for row in rows[1:5:2]] == ["1", "3"] and rows.read == [3, 1, 3]
    assert [row.id for row in rows] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("index", [5, -1])
def test_there_is_nothing_outside(index: int) -> None:
    rows = Counted()
    with pytest.raises(IndexError):
        rows[index]
    assert not rows.read


def test_held_out_problems_must_be_named(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"question": "1+1", "answer": "2"}\n')
    with pytest.raises(ConfigError, match=r"OnDisk\.table: wanted held-out problems of their own, got 'none'"):
        check_split(Table(path=str(tmp_path)), "OnDisk.table")
