"""Rungs of the sandbox that this machine can enter, as this user and as an unprivileged one."""

from __future__ import annotations

import functools
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import delta_lightning
from delta_lightning.errors import ConfigError
from delta_lightning.sandbox import Sandbox
from delta_lightning.sandbox.bwrap import ENVIRONMENT
from support import hostile

ISOLATING = ("bwrap-root", "bwrap-user", "unshare", "landlock")
NOBODY = 65534
_PYTHON = "/usr/bin/python3"  # the interpreter for another uid: this one's may lie in a folder that is closed to others


@functools.cache
def obstacle(rung: str, python: str | None = None) -> str | None:
    """Why this user cannot enter `rung` here; None when it can."""
    try:
        Sandbox.open(drivers=[hostile.DRIVER], rung=rung, allow_unsafe=True, python=python).close()
    except ConfigError as error:
        return str(error)
    return None


def need(rung: str, python: str | None = None) -> None:
    """Skip the test where `rung` cannot be entered."""
    reason = obstacle(rung, python)
    if reason is not None:
        pytest.skip(reason)


@functools.cache
def nobody_obstacle(rung: str) -> str | None:
    """Why an unprivileged user cannot enter `rung` here; None when it can."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return "needs root and setpriv to become somebody else"
    version = subprocess.run([_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False).returncode
    if version != 0:
        return f"needs Python 3.11 at {_PYTHON}"
    done = as_nobody("-c", _TRY, rung)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


_TRY = """
import sys
from pathlib import Path
from delta_lightning.sandbox import Sandbox
Sandbox.open(drivers=[], rung=sys.argv[1], allow_unsafe=True).close()
"""


def need_nobody(rung: str) -> None:
    """Skip the test where an unprivileged user cannot enter `rung`."""
    reason = nobody_obstacle(rung)
    if reason is not None:
        pytest.skip(reason)


def as_nobody(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python as an unprivileged uid on a copy of the sandbox that it may read."""
    source = Path(delta_lightning.__file__).parent
    with tempfile.TemporaryDirectory(prefix="delta-lightning-nobody-") as folder:
        place = Path(folder)
        (place / "delta_lightning").mkdir()
        for name in ("__init__.py", "errors.py"):
            shutil.copy(source / name, place / "delta_lightning" / name)
        shutil.copytree(source / "sandbox", place / "delta_lightning" / "sandbox", ignore=shutil.ignore_patterns("__pycache__"))
        for driver in (hostile.DRIVER, Path(hostile.__file__)):
            shutil.copy(driver, place / driver.name)
        for path in (place, *place.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IROTH | stat.S_IRGRP | (0o055 if path.is_dir() else 0))
        return subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", _PYTHON, "-B", *arguments],
            env={**ENVIRONMENT, "PYTHONPATH": folder, "HOSTILE_SECRET": os.environ.get("HOSTILE_SECRET", "")},
            cwd=folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a corpus showed on one rung.

    Args:
        program: the program.
        complaints: what does not hold.
    """

    program: hostile.Program
    complaints: tuple[str, ...]


def judged(rung: str, rows: Sequence[hostile.Program], *, limit: float, python: str | None = None) -> list[Finding]:
    """Run `rows` on `rung` as this user, each followed by a right program."""
    findings = []
    with ExitStack() as stack:
        outside = stack.enter_context(hostile.Outside())
        sandbox = Sandbox.open(drivers=[hostile.DRIVER], rung=rung, python=python)
        stack.callback(sandbox.close)
        for row in rows:
            outcome = hostile.judge(sandbox, row.code, limit=limit)
            found = hostile.complaints(row, outcome, outside, limit=limit)
            after = hostile.judge(sandbox, hostile.GOOD, limit=5.0)
            if not after.passed:
                found.append(f"the next job failed: {after.reason}")
            findings.append(Finding(program=row, complaints=tuple(found)))
    return findings


def judged_as_nobody(rung: str, rows: Sequence[hostile.Program], *, limit: float) -> list[Finding]:
    """The same as an unprivileged user, in a process of its own; effects outside are looked for at the end."""
    with hostile.Outside() as outside:
        text = "".join(json.dumps(vars(row)) + "\n" for row in rows)
        done = as_nobody("hostile.py", rung, str(limit), text=text)
        assert done.returncode == 0, done.stderr[-2000:]
        results = [json.loads(line) for line in done.stdout.splitlines()]
        assert [result["id"] for result in results] == [row.id for row in rows]
        findings = []
        for row, result in zip(rows, results, strict=True):
            outcome = hostile.Outcome(**result["outcome"])
            found = hostile.complaints(row, outcome, None, limit=limit)
            if outside.leaks(outcome):
                found.append("the secret came out")
            if not result["after"]["passed"]:
                found.append(f"the next job failed: {result['after']['reason']}")
            findings.append(Finding(program=row, complaints=tuple(found)))
        touched = outside.effects()
        assert not touched, touched
    return findings


def report(name: str, findings: Sequence[Finding]) -> str:
    """A line per category: how many programs of it there are, and which did not meet what is expected."""
    lines = [f"{name} ({sys.platform}, Linux {os.uname().release}):"]
    for category in sorted({finding.program.category for finding in findings}):
        rows = [finding for finding in findings if finding.program.category == category]
        bad = [f"{finding.program.id}: {'; '.join(finding.complaints)}" for finding in rows if finding.complaints]
        lines.append(f"  {category}: {len(rows) - len(bad)} of {len(rows)} hold" + (f" ({', '.join(bad)})" if bad else ""))
    return "\n".join(lines)
