"""A stand-in for the sandbox: cells are plain subprocesses. For drivers and trusted programs only, never for hostile ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from delta_lightning.sandbox import Ending, Limits
from delta_lightning.verifiers.code.sandboxes import DRIVERS

_RUN = """
import os, sys
sys.path.insert(0, {folder!r})
import {module}
os.chdir({work!r})
number = sys.stdin.fileno()
argument = sys.stdin.buffer.read()
null = os.open(os.devnull, os.O_RDWR)
os.dup2(null, 0); os.dup2(null, 1)
{module}.{function}({descriptors!r}, argument)
os._exit(0)
"""


class PlainCell:
    """One subprocess."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def wait(self, seconds: float) -> Ending | None:
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return Ending(exit_code=code if code >= 0 else None, signal=-code if code < 0 else None, out_of_memory=False)

    def kill(self) -> Ending:
        self._process.kill()
        ending = self.wait(10)
        assert ending is not None
        return ending


class PlainSandbox:
    """The interface of `Sandbox` as far as the code verifier uses it."""

    def __init__(self) -> None:
        self._work = tempfile.TemporaryDirectory()

    def start(
        self, entry: str, *, channels: Sequence[socket.socket], limits: Limits, lane: int = 0, argument: bytes = b""
    ) -> PlainCell:
        module, _, function = entry.partition(":")
        descriptors = [channel.fileno() for channel in channels]
        work = os.path.join(self._work.name, str(lane))
        os.makedirs(work, exist_ok=True)
        text = _RUN.format(folder=str(DRIVERS[0].parent), module=module, function=function, descriptors=descriptors, work=work)
        with tempfile.TemporaryFile() as file:
            file.write(argument)
            file.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", text],
                stdin=file, pass_fds=descriptors, stderr=None if os.environ.get("SHOW") else subprocess.DEVNULL,
            )  # fmt: skip
        return PlainCell(process)
