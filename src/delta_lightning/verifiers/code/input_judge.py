"""Tests that run the whole program: a fresh cell for each input, its output compared here as plain text."""

from __future__ import annotations

import math
import select
import socket
import time

from delta_lightning.sandbox import Cell, Ending, Limits, Sandbox
from delta_lightning.types import Status
from delta_lightning.verifiers.code.call_judge import ended
from delta_lightning.verifiers.code.cells.stdio import pack
from delta_lightning.verifiers.code.formats.test_format import InputTests
from delta_lightning.verifiers.code.outcome import Outcome

_MORE = 65536  # bytes that an output may be longer than the expected one, and it is still read
_AFTER = 0.2  # seconds that a program has to end after it closed its output
_MAX_NUMBER = 64  # characters of a number that is compared with a tolerance


def judge_inputs(sandbox: Sandbox, program: bytes, tests: InputTests, *, seconds: float, limits: Limits) -> Outcome:
    """Run the program on every input, all together for at most `seconds`.

    A case passes where the output agrees and the program ended by itself with exit code 0, no exception uncaught; neither alone
    is enough, so an expected "" is not earned by crashing. Raises `RunError` where the sandbox fails.
    """
    deadline = time.monotonic() + seconds
    passed, first = 0, ""
    for number, (text, expected) in enumerate(tests.cases, 1):
        problem = _case(sandbox, program, text, expected, tests.tolerance, deadline, limits)
        if problem is None:
            return Outcome(
                status=Status.TIMEOUT, passed=passed, total=len(tests.cases), reason=f"out of time in input {number}"
            )
        passed += not problem
        first = first or (f"input {number}: {problem}" if problem else "")
    status = Status.INCORRECT if first else Status.CORRECT
    return Outcome(status=status, passed=passed, total=len(tests.cases), reason=first)


def _case(
    sandbox: Sandbox, program: bytes, text: str, expected: str, tolerance: float, deadline: float, limits: Limits
) -> str | None:
    """Why the case fails, "" if it passes, None when time ran out."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            argument = pack(program, text.encode("utf-8", "surrogatepass"))
            cell = sandbox.start("stdio:run", channels=[theirs], limits=limits, lane=0, argument=argument)
        try:
            output, ending = _watch(cell, ours, len(expected) * 4 + _MORE, deadline)
        finally:
            cell.kill()
    if output is None:
        return "too much output"
    if ending is None:
        return None
    if ending.exit_code != 0:
        return f"the program ended with {ended(ending)}"
    return "" if agrees(output.decode("utf-8", "replace"), expected, tolerance) else "another output than expected"


def _watch(cell: Cell, output: socket.socket, most: int, deadline: float) -> tuple[bytes | None, Ending | None]:
    """(all of the output or None if it is too much, how the program ended or None if time ran out)."""
    parts: list[bytes] = []
    poll = select.poll()
    poll.register(output, select.POLLIN)
    size = 0
    ending: Ending | None = None
    while True:
        left = deadline - time.monotonic() if ending is None else 0.0
        if left <= 0 and ending is None:
            return b"", None
        # A child that the program left behind may hold the output open: its ending is looked at now and then.
        ready = poll.poll(min(left, _AFTER) * 1000)
        part = _part(output) if ready else b""
        if part:
            parts.append(part)
            size += len(part)
            if size > most:
                return None, None
        elif ending is not None:
            return b"".join(parts), ending
        else:
            ending = cell.wait(min(_AFTER, max(0.0, left)) if ready else 0.0)


def _part(output: socket.socket) -> bytes:
    """What can be read at once. A program can make `poll` speak of bytes that a read skips (MSG_OOB): it must not block."""
    try:
        return output.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


def agrees(output: str, expected: str, tolerance: float) -> bool:
    """Line by line, without white space at the ends of lines and of the whole; numbers within the tolerance, if any."""
    got, wanted = _lines(output), _lines(expected)
    if got == wanted:
        return True
    return (
        bool(tolerance)
        and len(got) == len(wanted)
        and all(_close(*lines, tolerance) for lines in zip(got, wanted, strict=True))
    )


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _close(got: str, wanted: str, tolerance: float) -> bool:
    left, right = got.split(), wanted.split()
    return len(left) == len(right) and all(_same_word(*words, tolerance) for words in zip(left, right, strict=True))


def _same_word(got: str, wanted: str, tolerance: float) -> bool:
    if got == wanted:
        return True
    if max(len(got), len(wanted)) > _MAX_NUMBER or "_" in got:
        return False
    try:
        a, b = float(got), float(wanted)
    except ValueError:
        return False
    return math.isfinite(a) and math.isfinite(b) and abs(a - b) <= tolerance * max(1.0, abs(b))
