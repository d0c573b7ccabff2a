"""No namespaces: Landlock closes the file system, the system call filter everything else, and a cell is one process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from delta_lightning.sandbox import seccomp
from delta_lightning.sandbox.inside.kernel import landlock_version
from delta_lightning.sandbox.interpreter import Interpreter, system_view
from delta_lightning.sandbox.rung import PROBES, Launch, Plan, Rung, may_change_uid
from delta_lightning.sandbox.slots import Slot


@dataclass(frozen=True, kw_only=True)
class Landlock(Rung):
    """Landlock, a system call filter without processes and sockets, limits; for containers that forbid namespaces.

    Args:
        memory_group: whether a memory control group holds each lane.
        process_group: whether a pids control group holds each lane.
        own_uid: whether cells may change to a uid of their lane: root, and an interpreter that others may run.
    """

    own_uid: bool = False
    name: ClassVar[str] = "landlock"

    def obstacle(self) -> str | None:
        """A kernel without Landlock, or no system call table for this architecture."""
        if landlock_version() < 1:
            return "the kernel has no Landlock (Linux 5.13 with it switched on)"
        return None if seccomp.assemble(alone=True) is not None else f"no system call table for {os.uname().machine}"

    def launch(self, slot: Slot, interpreter: Interpreter, folders: Sequence[str]) -> Launch:
        """The plain interpreter; the zygote closes the file system to itself and all it forks."""
        system, _ = system_view()
        plan = Plan(
            namespaces=False,
            uids=slot.uids if may_change_uid(interpreter) else None,
            capabilities=os.geteuid() == 0,
            seccomp=seccomp.assemble(alone=True),
            marker=seccomp.MARKER,
            landlock={"readable": [*system, *interpreter.folders, "/dev/urandom", "/dev/zero"], "devices": ["/dev/null"]},
            walls=landlock_version() >= 6,
            folders=tuple(folders),
        )
        return Launch(wrapper=(), entry="zygote", plan=plan)

    def promises(self) -> frozenset[str]:
        """Everything: what needs more than one process is closed because there is only one."""
        return frozenset(PROBES)

    @property
    def guarantees(self) -> tuple[str, ...]:
        """What holds, a line each."""
        return (
            "files: only /usr, the interpreter and the named folders can be read; nothing can be written (Landlock)",
            "no network, not even to this machine; no System V or POSIX message queues, semaphores and shared memory",
            "one process, which can start no other and signal no other: nothing outlives its cell",
            "no capabilities, no new privileges, a system call filter",
            "memory: address space of the process" + (", and a control group" if self.memory_group else ""),
            "threads: a pids control group" if self.process_group else "threads: RLIMIT_NPROC",
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What does not hold, a line each."""
        lines = [
            "right programs that start processes or write files fail",
            "names, sizes and times of files that cannot be read are visible (stat), and whether a process number is in use",
        ]
        if not self.own_uid:
            lines.append("no uid of its own: every cell is the trainer's uid, without its capabilities")
            if not self.process_group:
                lines.append("the limit of threads is loose: the kernel counts the user's other processes too (none for root)")
        return tuple(lines)
