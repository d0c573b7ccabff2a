"""A rung of the ladder: how the outer sandbox is entered, and what it promises."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from delta_lightning.sandbox.interpreter import Interpreter
from delta_lightning.sandbox.slots import Slot

PROBES = ("files", "writes", "network", "sight", "signals", "processes", "memory", "survivors")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the zygote and its cells do, as plain data that is sent inside.

    Args:
        namespaces: each cell gets a pid and a mount namespace of its own (the zygote has the capabilities for it).
        uids: real uid of each lane, or None to keep the zygote's.
        capabilities: whether the zygote empties its bounding set (it has capabilities at all).
        seccomp: the assembled system call filter in hexadecimal, or None for no filter and no locking of any kind.
        marker: the constant in the filter that stands for the cell's own process number.
        landlock: `readable` and `devices` for Landlock, or None.
        walls: each cell gets a Landlock domain of its own (no signals to others).
        watch_memory: the zygote adds up the memory of a cell's processes and kills it past its limit (no control group does).
        count_processes: the limit of processes is set (it would be of no use, or hit neighbours, where the uid is shared).
        folders: put on `sys.path` inside.
        keep: folders below /tmp or /dev/shm that stay visible when a cell gets its own.
        outside: for the rungs that build their own root: what is shown in it.
        lanes: cells at once.
    """

    namespaces: bool
    uids: tuple[int, ...] | None = None
    capabilities: bool = False
    seccomp: str | None = None
    marker: int = 0
    landlock: dict[str, Any] | None = None
    walls: bool = False
    watch_memory: bool = False
    count_processes: bool = True
    folders: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    outside: dict[str, Any] | None = None
    lanes: int = 2


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to start a rung's zygote.

    Args:
        wrapper: the command before the interpreter's own, () for none.
        entry: the module whose `main` runs inside: `zygote`, or `enter`, which builds the outer sandbox first.
        plan: what the zygote and its cells do.
    """

    wrapper: tuple[str, ...]
    entry: str
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class Rung(ABC):
    """One way of entering the sandbox. Build it for this machine; read `guarantees` and `missing` for people.

    Args:
        memory_group: whether a memory control group holds each lane.
        process_group: whether a pids control group holds each lane.
    """

    memory_group: bool = False
    process_group: bool = False
    name: ClassVar[str]

    @abstractmethod
    def obstacle(self) -> str | None:
        """Why it cannot be entered here, as far as can be told without trying; None to try."""

    @abstractmethod
    def launch(self, slot: Slot, interpreter: Interpreter, folders: Sequence[str]) -> Launch:
        """How its zygote is started in `slot`."""

    @abstractmethod
    def promises(self) -> frozenset[str]:
        """Which of `PROBES` must find everything closed."""

    @property
    @abstractmethod
    def guarantees(self) -> tuple[str, ...]:
        """What holds, a line each."""

    @property
    @abstractmethod
    def missing(self) -> tuple[str, ...]:
        """What does not hold, a line each."""


def counts_own_processes() -> bool:
    """Whether RLIMIT_NPROC counts a user namespace's processes alone and holds: Linux 5.14, and a uid other than 0."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= (5, 14) and os.geteuid() != 0


SETGID, SETUID, SYS_ADMIN = 6, 7, 21  # numbers of capabilities


def holds(*capabilities: int) -> bool:
    """Whether this process has these capabilities: root in a container may not."""
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return all(effective >> capability & 1 for capability in capabilities)


def may_change_uid(interpreter: Interpreter) -> bool:
    """Whether cells without a mount namespace can run as another uid: root, and an interpreter that others may run."""
    return os.geteuid() == 0 and holds(SETUID, SETGID) and interpreter.reachable_by_others()
