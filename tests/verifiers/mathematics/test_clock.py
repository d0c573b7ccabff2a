from __future__ import annotations

import pytest

from delta_lightning.verifiers.mathematics.clock import is_time, same_time


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("3:30", "3:30", True),
        ("3:30", "03:30", True),
        ("3:30", "3:30:00", True),
        ("3:30", "3:31", False),
        ("3:30", "3:30 \\text{ p.m.}", True),
        ("3:30 \\text{ PM}", "3:30", True),
        ("3:30 \\text{ PM}", "3:30 pm", True),
        ("3:30 \\text{ PM}", "3:30\\text{ a.m.}", False),
        ("3:30", "3.5", False),
        ("3:30", "30", False),
        ("2:3", "2:3", None),  # a ratio
        ("3.5", "3:30", None),
        ("x", "3:30", None),
    ],
)
def test_same_time(gold: str, answer: str, same: bool | None) -> None:
    assert same_time(gold, answer) is same
    assert is_time(gold) is (same is not None)
