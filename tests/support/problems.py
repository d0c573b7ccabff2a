"""Problems made up for tests of the data."""

from __future__ import annotations

from typing import Any

from delta_lightning.types import Problem


def problem(question: str, number: int, source: str = "train", **reference: Any) -> Problem:
    return Problem(id=str(number), question=question, reference={"answer": "1"} | reference, source=source)
