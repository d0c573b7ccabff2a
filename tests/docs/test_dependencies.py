"""docs/dependencies.md names every package and every extra of pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def test_every_package_is_justified() -> None:
    rows = re.findall(r"^\| (\S+) \|", PAGE, re.MULTILINE)
    assert {_name(each) for each in PROJECT["dependencies"]} <= set(rows)


def test_every_extra_names_its_packages() -> None:
    for extra, packages in PROJECT["optional-dependencies"].items():
        said = " ".join(re.findall(rf"^\| {extra} \|(.+)", PAGE, re.MULTILINE))
        missing = [name for name in map(_name, packages) if name not in said]
        assert not missing, (extra, missing)


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement)[0]
