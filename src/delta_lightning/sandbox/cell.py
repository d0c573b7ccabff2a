"""One job in its sandbox, seen from outside."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from delta_lightning.errors import RunError
from delta_lightning.sandbox.ending import Ending

if TYPE_CHECKING:
    from types import TracebackType

PATIENCE = 1.0  # seconds that a killed cell may take to be empty before its slot is left to die in the background


class Cell:
    """A running job. Leaving a `with` block kills it.

    Args:
        report: the pipe on which the zygote tells the ending.
        strike: asks the zygote to kill it.
        leave: gives the whole slot up when it does not become empty.
        starved: whether the lane's memory ran out since the cell was started.
        ended: called once when the ending is known.
    """

    def __init__(
        self,
        *,
        report: int,
        strike: Callable[[], None],
        leave: Callable[[], None],
        starved: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        self._report, self._strike, self._leave, self._starved, self._ended = report, strike, leave, starved, ended
        self._ending: Ending | None = None

    def wait(self, seconds: float) -> Ending | None:
        """Wait for it to end by itself; None while it still runs after `seconds`. When it has ended, nothing of it is left.

        Raises:
            RunError: the cell could not be made, or the zygote died: says nothing about the job.
        """
        if self._ending is None:
            readable = select.poll()
            readable.register(self._report, select.POLLIN)
            if not readable.poll(max(0.0, seconds) * 1000):
                return None
            self._ending = self._read()
            self._ended()
        return self._ending

    def kill(self) -> Ending:
        """SIGKILL to all of it; returns when it is empty, or gives its slot up after a second.

        Raises:
            RunError: as `wait`.
        """
        if self._ending is None:
            self._strike()
            ending = self.wait(PATIENCE)
            if ending is None:
                self._close()
                self._leave()
                self._ending = Ending(exit_code=None, signal=9, out_of_memory=self._starved())
        assert self._ending is not None
        return self._ending

    def _read(self) -> Ending:
        text = b""
        deadline = time.monotonic() + PATIENCE
        while not text.endswith(b"\n") and time.monotonic() < deadline:
            part = os.read(self._report, 65536)
            if not part:
                break
            text += part
        self._close()
        messages = [json.loads(line) for line in text.splitlines()]
        for message in messages:
            if "failed" in message:
                self._ended()
                raise RunError(f"The sandbox could not start a job: {message['failed']}")
        if not messages:
            self._ended()
            raise RunError("The sandbox's zygote died while a job ran. The next job gets a new one.")
        status = messages[-1]["status"]
        killed = os.WIFSIGNALED(status)
        return Ending(
            exit_code=None if killed else os.WEXITSTATUS(status),
            signal=os.WTERMSIG(status) if killed else None,
            out_of_memory=bool(messages[-1].get("memory")) or self._starved(),
        )

    def _close(self) -> None:
        if self._report >= 0:
            os.close(self._report)
            self._report = -1

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._ending is None and self._report >= 0:
            self.kill()
