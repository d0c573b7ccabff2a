"""The best rung: bubblewrap started by root, without a user namespace, each lane with a real uid of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from delta_lightning.sandbox import seccomp
from delta_lightning.sandbox.bwrap import outer
from delta_lightning.sandbox.interpreter import PRIVATE, Interpreter
from delta_lightning.sandbox.lines import NAMESPACES, SYSTEM_CALLS, memory_line, processes_line
from delta_lightning.sandbox.rung import PROBES, Launch, Plan, Rung
from delta_lightning.sandbox.slots import Slot

_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL")


@dataclass(frozen=True, kw_only=True)
class BwrapRoot(Rung):
    """Bubblewrap as root: all namespaces, a real unprivileged uid for each lane of each slot, control groups where writable.

    Args:
        memory_group: whether a memory control group holds each lane.
        process_group: whether a pids control group holds each lane.
    """

    name: ClassVar[str] = "bwrap-root"

    def obstacle(self) -> str | None:
        """Not root, no bubblewrap, or no system call table for this architecture."""
        if os.geteuid() != 0:
            return "this process is not root"
        return bwrap_obstacle()

    def launch(self, slot: Slot, interpreter: Interpreter, folders: Sequence[str]) -> Launch:
        """Bubblewrap with every namespace but the user's; the cells change to the lane's uid."""
        spaces = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
        program, *rest = outer(shutil.which("bwrap") or "bwrap", interpreter, _CAPABILITIES)
        plan = Plan(
            namespaces=True,
            uids=slot.uids,
            capabilities=True,
            seccomp=seccomp.assemble(alone=False),
            watch_memory=not self.memory_group,
            folders=tuple(folders),
            keep=interpreter.below(*PRIVATE),
        )
        return Launch(wrapper=(program, *spaces, *rest), entry="zygote", plan=plan)

    def promises(self) -> frozenset[str]:
        """Everything."""
        return frozenset(PROBES)

    @property
    def guarantees(self) -> tuple[str, ...]:
        """What holds, a line each."""
        return (
            *NAMESPACES,
            "an unprivileged uid of this machine for each lane of each slot, used by nothing else",
            *SYSTEM_CALLS,
            processes_line(self.process_group),
            memory_line(self.memory_group),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What does not hold, a line each."""
        return () if self.memory_group else ("no memory control group: the zygote's watch is some 50 ms late",)


def bwrap_obstacle() -> str | None:
    """Why bubblewrap cannot be used, as far as can be told without trying."""
    if shutil.which("bwrap") is None:
        return "bubblewrap (bwrap) is not installed"
    if seccomp.assemble(alone=False) is None:
        return f"no system call table for {os.uname().machine}"
    return None
