"""How one job ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the first process of a cell ended; when it is known, no process of the cell is left.

    Args:
        exit_code: its exit code, or None when a signal ended it.
        signal: the signal that ended it, or None. 9 after `Cell.kill`, past a hard limit, and after running out of memory.
        out_of_memory: whether the memory limit ended it, where the control group or the zygote's watch can tell, else False.
    """

    exit_code: int | None
    signal: int | None
    out_of_memory: bool
