"""README.md: its verifier obeys the laws by the command that stands there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from delta_lightning.__main__ import main

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_verifier_of_the_page_obeys_the_laws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "YesNo" in block)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "yes_no.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = next(line for line in README.splitlines() if line.startswith("delta-lightning check my_package"))
    try:
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().out
    finally:
        for name in ("my_package", "my_package.yes_no"):
            sys.modules.pop(name, None)
