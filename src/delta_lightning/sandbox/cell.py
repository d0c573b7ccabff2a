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

PATIENCE = 0.8  # seconds for a killed cell to be empty before its slot is given up: a verdict has 1 s after its limit


class Cell:
    """A running job. Leaving a `with` block kills it.

    Args:
        report: the pipe on which the zygote tells the ending.
        strike: asks the zygote to kill it.
        leave: gives the whole slot up when it does not become empty.
        starved: whether the lane's memory ran out since the cell was started.
        sweep: ends what a cell without a pid namespace has left in its control group; whether that is empty.
        ended: called once when the ending is known.
        given_up: whether the slot was left to die because of its other lane: then this cell was killed, and nothing failed.
        last_words: what a zygote that died has said.
    """

    def __init__(
        self,
        *,
        report: int,
        strike: Callable[[], None],
        leave: Callable[[], None],
        starved: Callable[[], bool],
        sweep: Callable[[], bool],
        ended: Callable[[], None],
        given_up: Callable[[], bool],
        last_words: Callable[[], str],
    ) -> None:
        self._report, self._strike, self._leave = report, strike, leave
        self._starved, self._sweep, self._ended = starved, sweep, ended
        self._given_up, self._last_words = given_up, last_words
        self._ending: Ending | None = None
        self._failure: RunError | None = None

    def wait(self, seconds: float) -> Ending | None:
        """Wait for it to end by itself; None while it still runs after `seconds`. When it has ended, nothing of it is left.

        Raises:
            RunError: the cell could not be made, or the zygote died: says nothing about the job.
        """
        if self._failure is not None:
            raise self._failure
        if self._ending is None:
            readable = select.poll()
            readable.register(self._report, select.POLLIN)
            if not readable.poll(max(0.0, seconds) * 1000):
                return None
            try:
                self._ending = self._read()
            except RunError as error:
                self._failure = error
                raise
            finally:
                self._close()
                self._ended()
            if not self._sweep():
                self._leave()
        return self._ending

    def kill(self) -> Ending:
        """SIGKILL to all of it; returns when it is empty, or gives its slot up after a second.

        Raises:
            RunError: as `wait`.
        """
        ending = self.wait(0.0)
        if ending is None:
            if not self._given_up():
                self._strike()
            ending = self.wait(PATIENCE)
        if ending is None:
            self._close()
            self._leave()
            ending = self._ending = Ending(exit_code=None, signal=9, out_of_memory=self._starved())
        return ending

    def _read(self) -> Ending:
        text = b""
        deadline = time.monotonic() + PATIENCE
        while not text.endswith(b"\n") and time.monotonic() < deadline:
            part = os.read(self._report, 65536)
            if not part:
                break
            text += part
        messages = [json.loads(line) for line in text.splitlines()]
        for message in messages:
            if "failed" in message:
                raise RunError(f"The sandbox could not start a job: {message['failed']}")
        if not messages and self._given_up():
            return Ending(exit_code=None, signal=9, out_of_memory=self._starved())
        if not messages:
            raise RunError(f"The sandbox's zygote died while a job ran ({self._last_words()}). The next job gets a new one.")
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
        if self._failure is None:
            self.kill()
