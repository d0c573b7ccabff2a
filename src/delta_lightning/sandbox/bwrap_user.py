"""Bubblewrap without root: a user namespace gives the zygote its capabilities, and the cells give them up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from delta_lightning.sandbox import seccomp
from delta_lightning.sandbox.bwrap import outer
from delta_lightning.sandbox.bwrap_root import bwrap_obstacle
from delta_lightning.sandbox.interpreter import PRIVATE, Interpreter
from delta_lightning.sandbox.lines import NAMESPACES, SYSTEM_CALLS, memory_line, processes_line
from delta_lightning.sandbox.rung import PROBES, Launch, Plan, Rung, counts_own_processes
from delta_lightning.sandbox.slots import Slot


@dataclass(frozen=True, kw_only=True)
class BwrapUser(Rung):
    """Bubblewrap in a user namespace, for users other than root, and for root without its capabilities.

    Args:
        memory_group: whether a memory control group holds each lane.
        process_group: whether a pids control group holds each lane.
    """

    name: ClassVar[str] = "bwrap-user"

    def obstacle(self) -> str | None:
        """No bubblewrap, or no system call table; whether the kernel lets users make namespaces shows when it is tried."""
        return bwrap_obstacle()

    def launch(self, slot: Slot, interpreter: Interpreter, folders: Sequence[str]) -> Launch:
        """Bubblewrap with every namespace; all lanes share the trainer's uid, mapped to itself."""
        program, *rest = outer(shutil.which("bwrap") or "bwrap", interpreter, ("CAP_SYS_ADMIN", "CAP_SETPCAP"))
        plan = Plan(
            namespaces=True,
            capabilities=True,
            seccomp=seccomp.assemble(alone=False),
            watch_memory=not self.memory_group,
            count_processes=counts_own_processes(),
            folders=tuple(folders),
            keep=interpreter.below(*PRIVATE),
        )
        return Launch(wrapper=(program, "--unshare-user", "--unshare-all", *rest), entry="zygote", plan=plan)

    def promises(self) -> frozenset[str]:
        """Everything, but the number of processes where neither the kernel nor a control group counts it."""
        return frozenset(PROBES) - (frozenset() if self.process_group or counts_own_processes() else {"processes"})

    @property
    def guarantees(self) -> tuple[str, ...]:
        """What holds, a line each."""
        counted = (processes_line(self.process_group),) if "processes" in self.promises() else ()
        return (*NAMESPACES, *SYSTEM_CALLS, *counted, memory_line(self.memory_group))

    @property
    def missing(self) -> tuple[str, ...]:
        """What does not hold, a line each."""
        return user_missing(self, os.geteuid())


def user_missing(rung: Rung, uid: int) -> tuple[str, ...]:
    """What a rung with a user namespace lacks: shared with the one that does without bubblewrap."""
    lines = [f"no uid of its own: every cell is uid {uid} to the kernel, behind its namespaces"]
    if "processes" not in rung.promises():
        lines.append("the number of processes is not limited (the kernel does not count them for root, or is before 5.14)")
    if not rung.memory_group:
        lines.append("no memory control group: the zygote's watch is some 50 ms late")
    return tuple(lines)
