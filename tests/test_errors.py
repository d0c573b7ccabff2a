"""One refusal ends the checks, unless all are collected."""

from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError, collected_errors, require


def check(value: int) -> None:
    require(value > 0, "a", wanted="more than 0", got=value, remedy="Raise it.")
    require(value > 1, "b", wanted="more than 1", got=value, remedy="Raise it.")


def test_the_first_refusal_is_raised() -> None:
    with pytest.raises(ConfigError, match=r"^a: "):
        check(0)


def test_collected_refusals_are_all_there_and_only_within_the_block() -> None:
    with collected_errors() as found:
        check(0)
        check(1)
    assert [error.what for error in found] == ["a", "b", "b"]
    with pytest.raises(ConfigError):
        check(1)
    assert len(found) == 3
