"""Tests that call the program: two cells, one judge, and a verifier that only waits for one line."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from delta_lightning.sandbox import Cell, Ending, Limits, Sandbox
from delta_lightning.types import Status
from delta_lightning.verifiers.code.formats.test_format import CallTests
from delta_lightning.verifiers.code.outcome import Outcome

_VERDICT = re.compile(rb'([01]*)(e?)(?:\n("[ -~]{0,4000}")\n)?', re.DOTALL)
_JUDGE_MIB = 576  # so that nothing that a program may send runs the judge out of memory, which would be our error
_MAX_REASON = 4096  # bytes of the verdict's line
_ENDED = "ProgramFault: the program ended"


def judge_calls(sandbox: Sandbox, program: bytes, tests: CallTests, *, seconds: float, limits: Limits) -> Outcome:
    """Run program and tests in two cells that share nothing but a socket, for at most `seconds`.

    The program's cell holds the program and answers calls; the judge's cell holds the tests. Both are killed before this
    returns. Raises `RunError` where the sandbox fails, or where the judge ends without a verdict while time is left.
    """
    deadline = time.monotonic() + seconds
    cells: list[Cell] = []
    try:
        with ExitStack() as stack:
            program_end, judge_end = (stack.enter_context(end) for end in socket.socketpair())
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            cells.append(sandbox.start("candidate:serve", channels=[program_end], limits=limits, lane=0, argument=program))
            room = replace(limits, memory_mib=max(limits.memory_mib, _JUDGE_MIB))
            cells.append(
                sandbox.start("judge:serve", channels=[judge_end, theirs], limits=room, lane=1, argument=_argument(tests))
            )
            for end in (program_end, judge_end, theirs):
                end.close()  # so that either side sees the other's end
            text, late = _read(ours, len(tests.units) + _MAX_REASON, deadline)
    finally:
        endings = killed(cells)
    return _outcome(text, late, len(tests.units), endings)


def _argument(tests: CallTests) -> bytes:
    return json.dumps(
        {
            "helpers": tests.helpers,
            "setup": tests.setup,
            "units": tests.units,
            "target": tests.target,
            "alias": tests.alias,
        }
    ).encode("ascii")


def _read(verdict: socket.socket, most: int, deadline: float) -> tuple[bytes, bool]:
    """The judge's text, whole or as far as it came; and whether time ran out."""
    text = b""
    poll = select.poll()
    poll.register(verdict, select.POLLIN)
    while text.count(b"\n") < 2 and len(text) <= most:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return text, True
        part = verdict.recv(most + 1 - len(text))
        if not part:
            break
        text += part
    return text, False


def _outcome(text: bytes, late: bool, total: int, endings: list[Ending]) -> Outcome:
    """The strictly parsed verdict. A judge that says nothing sensible is our failure, never the program's."""
    found = _VERDICT.fullmatch(text)
    marks = found[1].decode() if found else ""
    passed = marks.count("1")
    if late:
        return Outcome(status=Status.TIMEOUT, passed=passed, total=total, reason="the time limit of the program ran out")
    reason = json.loads(found[3]) if found and found[3] else None
    broken = bool(found and found[2])
    if reason is None or (len(marks) != total and not broken):
        got = f"the judge ended without a verdict: {ended(endings[1])}; it said {text[-80:]!r}"
        return Outcome(status=Status.ERROR, passed=passed, total=total, reason=got)
    if broken:
        return Outcome(status=Status.ERROR, passed=passed, total=total, reason=f"the tests are broken: {reason}")
    if passed == total:
        return Outcome(status=Status.CORRECT, passed=passed, total=total)
    if _ENDED in reason:
        reason += f" ({ended(endings[0])})"
    return Outcome(status=Status.INCORRECT, passed=passed, total=total, reason=reason)


def killed(cells: Sequence[Cell]) -> list[Ending]:
    """How each ended, all of them killed even where the sandbox fails for one. Raises `RunError` then."""
    with ExitStack() as stack:
        for cell in cells:
            stack.callback(cell.kill)
    return [cell.kill() for cell in cells]


def ended(ending: Ending) -> str:
    """One phrase for people."""
    if ending.out_of_memory:
        return "out of memory"
    return f"exit code {ending.exit_code}" if ending.signal is None else f"signal {ending.signal}"
