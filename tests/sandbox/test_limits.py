"""Limits are refused below what an interpreter needs."""

from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.sandbox import Limits


@pytest.mark.parametrize(
    ("name", "value"),
    [("memory_mib", 15), ("cpu_seconds", 0), ("processes", 0), ("disk_mib", 0), ("open_files", 15), ("memory_mib", 64.5)],
)
def test_too_little_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"limits.{name}"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_the_least_values_are_accepted() -> None:
    assert Limits(memory_mib=16, cpu_seconds=1, processes=1, disk_mib=1, open_files=16).processes == 1
