"""Namespaces without bubblewrap: unshare(2), a root of read-only bind mounts, Landlock on top where the kernel has it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from delta_lightning.sandbox import seccomp
from delta_lightning.sandbox.bwrap_user import user_missing
from delta_lightning.sandbox.inside.kernel import landlock_version
from delta_lightning.sandbox.interpreter import DEVICES, PRIVATE, STREAMS, Interpreter, system_view
from delta_lightning.sandbox.lines import NAMESPACES, SYSTEM_CALLS, memory_line, processes_line
from delta_lightning.sandbox.rung import PROBES, SETGID, SETUID, SYS_ADMIN, Launch, Plan, Rung, counts_own_processes, holds
from delta_lightning.sandbox.slots import Slot


@dataclass(frozen=True, kw_only=True)
class Unshare(Rung):
    """The kernel's namespaces, entered by ourselves: as root without a user namespace, with a real uid for each lane.

    Args:
        memory_group: whether a memory control group holds each lane.
        process_group: whether a pids control group holds each lane.
    """

    name: ClassVar[str] = "unshare"

    def obstacle(self) -> str | None:
        """No system call table; whether the kernel allows the namespaces shows when it is tried."""
        return None if seccomp.assemble(alone=False) is not None else f"no system call table for {os.uname().machine}"

    def launch(self, slot: Slot, interpreter: Interpreter, folders: Sequence[str]) -> Launch:
        """The plain interpreter, which makes the namespaces and its own root before it becomes the zygote."""
        system, links = system_view()
        root = _is_full_root()
        outside = {
            "user_namespace": not root,
            "readable": [*system, *interpreter.folders],
            "devices": list(DEVICES),
            "links": [*links, *STREAMS],
        }
        plan = Plan(
            namespaces=True,
            uids=slot.uids if root else None,
            capabilities=True,
            seccomp=seccomp.assemble(alone=False),
            walls=landlock_version() >= 6,
            watch_memory=not self.memory_group,
            count_processes=root or counts_own_processes(),
            folders=tuple(folders),
            keep=interpreter.below(*PRIVATE),
            outside=outside,
        )
        return Launch(wrapper=(), entry="enter", plan=plan)

    def promises(self) -> frozenset[str]:
        """Everything, but the number of processes where neither the kernel nor a control group counts it."""
        counted = self.process_group or _is_full_root() or counts_own_processes()
        return frozenset(PROBES) - (frozenset() if counted else {"processes"})

    @property
    def guarantees(self) -> tuple[str, ...]:
        """What holds, a line each."""
        counted = (processes_line(self.process_group),) if "processes" in self.promises() else ()
        own = ("an unprivileged uid of this machine for each lane of each slot",) if _is_full_root() else ()
        return (*NAMESPACES, *own, *SYSTEM_CALLS, *counted, memory_line(self.memory_group))

    @property
    def missing(self) -> tuple[str, ...]:
        """What does not hold, a line each."""
        if _is_full_root():
            return () if self.memory_group else ("no memory control group: the zygote's watch is some 50 ms late",)
        return user_missing(self, os.geteuid())


def _is_full_root() -> bool:
    """Root with the capabilities for namespaces and uids; root in a container may lack them, and needs a user namespace too."""
    return os.geteuid() == 0 and holds(SYS_ADMIN, SETUID, SETGID)
