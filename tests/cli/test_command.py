from __future__ import annotations

import sys
from pathlib import Path

import pytest

from delta_lightning.cli.command import prepare, run_command
from delta_lightning.errors import ConfigError, RunError


def test_what_the_command_gives_is_the_exit_code() -> None:
    assert run_command(lambda: 0) == 0
    assert run_command(lambda: 3) == 3


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("a", wanted="b", got="c", remedy="D."), 2, "wanted"),
        (RunError("the disk burns"), 1, "the disk burns"),
        (KeyboardInterrupt(), 130, "stopped half-way"),
        (SystemExit(7), 7, ""),
        (SystemExit(), 0, ""),
        (SystemExit("no"), 1, ""),
    ],
)
def test_errors_made_on_purpose_end_in_one_message(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    assert run_command(command, interrupted="stopped half-way") == code
    out, err = capsys.readouterr()
    assert said in err and not out and "Traceback" not in err


def test_ctrl_c_that_lightning_made_an_exit_is_still_said(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert run_command(command, interrupted="stopped half-way") == 130
    assert capsys.readouterr().err == "stopped half-way\n"


def test_bugs_keep_their_traceback() -> None:
    def command() -> int:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        run_command(command)


def test_files_are_read_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        prepare([f"--config={tmp_path / 'missing.yaml'}"], ())
