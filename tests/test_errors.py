"""One refusal ends the checks, unless all are collected."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError, check_path, collected_errors, require


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


def test_a_relative_path_is_said_to_begin_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_path("configs/a.json").endswith(f"the working folder, {tmp_path}.")
    assert check_path(tmp_path / "a.json") == "Check the path."
