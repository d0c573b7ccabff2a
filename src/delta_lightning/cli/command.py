"""How every command of `delta-lightning` begins and ends: plug-ins and files first, then one message and an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from delta_lightning.cli import swap
from delta_lightning.cli.config_files import check_config_files, settle
from delta_lightning.cli.failures import told
from delta_lightning.cli.plugins import load_plugins


def say(line: str) -> None:
    """A line on stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def prepare(args: Sequence[str], packages: Sequence[str], tell: Callable[[str], None] = say) -> None:
    """Makes the parts of `packages` and of plug-ins known by short names, and reads the config files that `args` name.

    `tell` shows a line about plug-ins. Raises `ConfigError` for a file that is missing or no YAML.
    """
    for package in packages:
        importlib.import_module(f"delta_lightning.{package}")
    load_plugins(tell)
    settle()
    check_config_files(args)


def say_dropped() -> None:
    """What swaps of classes dropped while the arguments were parsed."""
    for line in swap.take_dropped():
        say(line)


def run_command(command: Callable[[], int], *, folder: Callable[[], Path] = Path, interrupted: str = "interrupted") -> int:
    """Runs `command`; every error made on purpose ends in one message and an exit code, bugs keep their traceback.

    Args:
        command: gives its exit code. folder: where it writes, asked when it failed. interrupted: what Ctrl-C left behind.
    """
    try:
        return command()
    except (SystemExit, KeyboardInterrupt) as stop:
        # Lightning makes a silent exit of a Ctrl-C that comes while it begins or ends, when no callback listens.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if interrupted:
            say(interrupted)
        return 130
    except Exception as error:  # noqa: BLE001 -- said in one message, or raised again
        return told(error, folder())
