"""The open sandbox of this process: a verifier is pickled and pure, so what runs is kept here."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

from delta_lightning.sandbox import Sandbox

_CELLS = Path(__file__).parent / "cells"
# In the order in which they import each other.
DRIVERS = tuple(
    _CELLS / f"{name}.py"
    for name in ("preload", "literals", "frames", "candidate", "remote", "judge", "eval_plus", "calls", "stdio")
)

Key = tuple[str, bool, tuple[str, ...]]
_open: dict[tuple[int, Key], Sandbox] = {}


def sandbox_for(rung: str, allow_unsafe: bool, packages: tuple[str, ...]) -> Sandbox:
    """The sandbox with these settings, opened if it is not. Raises what `Sandbox.open` raises."""
    key = (os.getpid(), (rung, allow_unsafe, packages))  # a forked process must not talk to its parent's
    if key not in _open:
        folders = [Path(folder).expanduser().resolve() for folder in packages]
        _open[key] = Sandbox.open(drivers=DRIVERS, rung=rung, allow_unsafe=allow_unsafe, folders=folders)
    return _open[key]


def forget(rung: str, allow_unsafe: bool, packages: tuple[str, ...]) -> None:
    """Close the sandbox with these settings, so that the next use opens a new one."""
    sandbox = _open.pop((os.getpid(), (rung, allow_unsafe, packages)), None)
    if sandbox is not None:
        sandbox.close()


@atexit.register
def close_all() -> None:
    """Close what this process opened."""
    for process, key in list(_open):
        if process == os.getpid():
            forget(*key)
