"""What the zygote sees in /proc: the memory of a cell's processes, and orphans where no namespace ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import time

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PATIENCE = 0.5  # seconds that orphans are hunted; what is left then keeps the slot from being used again


def memory(first: set[int]) -> dict[int, int]:
    """Bytes of private memory of each of the processes `first` and all below it, over what it began with.

    A forked process shares its parent's pages until it writes to them, and cannot be told from one that has its own, so each
    process's memory counts in full but for the zygote's own: a bound from above for programs that fork after filling memory.
    """
    parents = _parents()
    own = _private(os.getpid())
    used = dict.fromkeys(first, 0)
    for process in parents:
        above = process
        while above in parents and above not in used:
            above = parents[above]
        if above in used:
            used[above] += max(0, _private(process) - own)
    return used


def orphans(spare: set[int]) -> bool:
    """Kill this process's children but for `spare`, and theirs as they become its own; True when none is left."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        found = [process for process, parent in _parents().items() if parent == os.getpid() and process not in spare]
        if not found:
            return True
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)
    return False


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                found[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    return found


def _private(process: int) -> int:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{process}/statm") as file:
        fields = file.read().split()
        return (int(fields[1]) - int(fields[2])) * _PAGE
    return 0
