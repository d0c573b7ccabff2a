"""The table of `docs/advantages.md`: what k right answers of sixteen are worth under each estimator."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.advantages import GroupCentred, GroupStandardised, LeaveOneOut, MaxRL, PassAtK
from support.graded import of_rewards

PAGE = Path(__file__).parents[2] / "docs" / "advantages.md"
PARTS = (GroupStandardised(), GroupStandardised(std="population"), GroupCentred(), LeaveOneOut(), MaxRL(), PassAtK())


def table() -> dict[int, list[tuple[float, float]]]:
    """k -> (right, wrong) of each column."""
    section = PAGE.read_text(encoding="utf-8").partition("### Difficulty")[2].partition("### Length")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|") and line[2].isdigit()]
    return {int(row[0]): [tuple(map(float, cell.split(","))) for cell in row[1:]] for row in rows}  # type: ignore[misc]


@pytest.mark.parametrize("column", range(len(PARTS)), ids=[repr(part) for part in PARTS])
def test_page(column: int) -> None:
    rows = table()
    assert list(rows) == [1, 4, 8, 12, 15]
    for right, values in rows.items():
        got = of_rewards(PARTS[column], [1.0] * right + [0.0] * (16 - right))
        assert (got[0], got[-1]) == pytest.approx(values[column], abs=6e-5)
