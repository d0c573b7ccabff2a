"""Where a result comes from: what must be known to get it again."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SECRET = re.compile(r"--[^=]*(?:key|token|secret|password)", re.IGNORECASE)
NO_SECRET = re.compile(r"--[^=]*tokens|--[^=]*tokenizer", re.IGNORECASE)  # numbers of tokens are none
PACKAGES = ("delta-lightning", "torch", "lightning", "transformers")


def provenance(*, seeds: Mapping[str, int] | None = None, packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Commit, versions, device, threads, seeds, command and time (UTC), as plain values for a JSON file.

    Args:
        seeds: those that the result depends on, by name.
        packages: further packages whose versions matter.

    Returns:
        `command` is without the values of options whose names speak of secrets. `commit` is None when the package was not run
        from a checkout, and then `dirty` is too; `dirty` is True when tracked files differ from the commit. `device` is the
        GPU's name, or the processor's. `threads` are those of torch.
    """
    import torch

    return {
        **_commit(Path(__file__).resolve()),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in (*PACKAGES, *packages)},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "devices": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "seeds": dict(seeds or {}),
        "command": shlex.join([Path(sys.argv[0]).name, *without_secrets(sys.argv[1:])]),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """The arguments, `...` for the value of each option whose name speaks of a key, a token, a secret or a password."""
    told, hide = list[str](), False
    for argument in arguments:
        name = argument.partition("=")[0]
        named = name.startswith("--") and SECRET.match(name) is not None and NO_SECRET.match(name) is None
        told.append(
            "..." if hide and not argument.startswith("--") else f"{name}=..." if named and "=" in argument else argument
        )
        hide = named and "=" not in argument
    return told


def _commit(file: Path) -> dict[str, Any]:
    """Commit and dirty flag of the checkout that tracks `file`."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(file.parent), *arguments], capture_output=True, text=True, check=False)
        except OSError:  # git is not installed
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", file.name) is None:  # installed, perhaps inside somebody else's checkout
        return {"commit": None, "dirty": None}
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
