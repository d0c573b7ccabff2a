"""The Python that runs inside: which program, and the least that must be visible for it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from delta_lightning.errors import ConfigError

SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin")  # visible read-only; those that are links become links
PRIVATE = ("/tmp", "/dev/shm")  # each cell has its own
STREAMS = (("/dev/stdin", "/proc/self/fd/0"), ("/dev/stdout", "/proc/self/fd/1"), ("/dev/fd", "/proc/self/fd"))  # as everywhere
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """The base interpreter and what it needs to see.

    Args:
        program: the real path of the executable, outside any virtual environment.
        folders: what must be readable besides the system's own folders: the executable, its prefix's `lib` and `lib64`.
    """

    program: str
    folders: tuple[str, ...]

    @classmethod
    def find(cls, extra: Sequence[Path] = (), program: str | None = None) -> Interpreter:
        """The interpreter behind the running one (or `program`), with `extra` folders shown too.

        Raises:
            ConfigError: an `extra` folder that is not there.
        """
        real = os.path.realpath(program or getattr(sys, "_base_executable", sys.executable) or sys.executable)
        prefix = os.path.dirname(os.path.dirname(real))
        wanted = [real, *(path for name in ("lib", "lib64") if os.path.isdir(path := os.path.join(prefix, name)))]
        for folder in extra:
            if not folder.is_dir():
                raise ConfigError(
                    "sandbox folders", wanted="folders that are there", got=str(folder), remedy="Remove it or correct its name."
                )
            wanted.append(os.path.realpath(folder))
        return cls(program=real, folders=tuple(path for path in dict.fromkeys(wanted) if not _below_system(path)))

    def below(self, *places: str) -> tuple[str, ...]:
        """Those of its folders that lie below one of `places`."""
        return tuple(path for path in self.folders if any(path.startswith(place + "/") for place in places))

    def reachable_by_others(self) -> bool:
        """Whether another uid of this machine can run it: every folder on the way is open to others."""
        for path in self.folders:
            steps = [path, *(str(parent) for parent in Path(path).parents)]
            if any(not os.stat(step).st_mode & stat.S_IXOTH for step in steps):
                return False
        return True


def _below_system(path: str) -> bool:
    return any(path == top or path.startswith(top + "/") for top in SYSTEM)


def system_view() -> tuple[list[str], list[tuple[str, str]]]:
    """The system's own folders: those to bind, and (path, target) of those that are links into them."""
    folders, links = [], []
    for path in SYSTEM:
        if os.path.islink(path):
            links.append((path, os.readlink(path)))
        elif os.path.isdir(path):
            folders.append(path)
    return folders, links
