"""What every command does before jsonargparse parses: its settings, config files checked as YAML, errors in a few words.

Nothing here imports torch or Lightning: `delta-lightning verify` starts without them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from delta_lightning.cli import swap
from delta_lightning.cli.failures import delta_error, show
from delta_lightning.cli.messages import Vocabulary, explain, nearest
from delta_lightning.errors import ConfigError, check_path


def settle() -> None:
    """Settings of jsonargparse that every parser of the process follows."""
    set_parsing_settings(import_path_allowlist=[])  # a value may not name os, subprocess and the like
    swap.install()


class ShortErrors(ArgumentParser):
    """A parser whose errors are one short message on stderr and exit code 2."""

    roots: ClassVar[dict[str, Any]] = {}  # the class behind each group of settings, set by the composition root

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by jsonargparse for every error of parsing; parsers inside parsers hand theirs up."""
        if not self.exit_on_error:
            super().error(message, ex)
        cause = delta_error(ex)
        show(str(cause) if cause is not None else explain(message, Vocabulary(options=list(_options(self)), roots=self.roots)))
        sys.exit(2)


def check_config_files(args: Sequence[str]) -> None:
    """Refuses a missing config file, one that is no YAML, and a key given twice. Raises `ConfigError`."""
    for given in config_values(args):
        if "://" in given:
            continue  # read by fsspec
        path = Path(given)
        if not path.is_file():
            others = [str(other) for other in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
            raise ConfigError(
                f"--config={given}", wanted="a YAML file", got="nothing there" if not path.exists() else "a folder",
                remedy=nearest(given, others).strip() or check_path(path),
            )  # fmt: skip
        try:
            tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            problem = getattr(error, "problem", None) or str(error)
            raise ConfigError(
                str(path), wanted="YAML", got=f"{where}{problem}", remedy="Look at that line and the one before it."
            ) from error
        _refuse_twins(tree, path)


def _refuse_twins(node: Any, path: Path) -> None:
    """YAML lets a later key silently replace an earlier one."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if str(key.value) in seen:
                raise ConfigError(
                    f"{path}: line {line}", wanted="each key once", got=f"'{key.value}', first on line {seen[str(key.value)]}",
                    remedy="Remove one of the two: the later one would silently win.",
                )  # fmt: skip
            seen[str(key.value)] = line
            _refuse_twins(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twins(value, path)


def config_values(args: Sequence[str]) -> Iterator[str]:
    """The values of `--config` and `-c`, in order."""
    for index, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in ("--config", "-c"):
            if equals:
                yield value
            elif index + 1 < len(args):
                yield args[index + 1]


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (name.lstrip("-") for name in action.option_strings if name.startswith("--"))
        for below in getattr(action, "_name_parser_map", {}).values():
            yield from _options(below)
