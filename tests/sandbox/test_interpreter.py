"""Which Python runs inside, and what is shown for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.sandbox.interpreter import Interpreter, system_view


def test_it_is_the_base_interpreter_and_shows_only_its_library() -> None:
    interpreter = Interpreter.find()
    assert os.path.samefile(interpreter.program, sys._base_executable)  # type: ignore[attr-defined]
    prefix = os.path.dirname(os.path.dirname(interpreter.program))
    assert all(path in (interpreter.program, f"{prefix}/lib", f"{prefix}/lib64") for path in interpreter.folders)


def test_what_the_system_shows_anyway_is_not_listed() -> None:
    assert Interpreter.find(program="/usr/bin/env").folders == ()
    assert Interpreter.find([Path("/usr/share")], program="/usr/bin/env").folders == ()


def test_folders_are_shown_and_must_be_there(tmp_path: Path) -> None:
    interpreter = Interpreter.find([tmp_path], program="/usr/bin/env")
    assert interpreter.folders == (os.path.realpath(tmp_path),)
    assert interpreter.below("/nowhere") == ()
    assert interpreter.below(os.path.dirname(os.path.realpath(tmp_path))) == interpreter.folders
    with pytest.raises(ConfigError, match="sandbox folders"):
        Interpreter.find([tmp_path / "none"])


def test_whether_another_uid_may_run_it(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    assert Interpreter.find(program="/usr/bin/env").reachable_by_others()
    assert not Interpreter(program="x", folders=(str(tmp_path / "closed"),)).reachable_by_others()


def test_the_system_view_has_every_folder_once() -> None:
    folders, links = system_view()
    assert "/usr" in folders
    assert not {path for path, _ in links} & set(folders)
    assert all(os.readlink(path) == target for path, target in links)
