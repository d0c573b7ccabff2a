"""The lowest rung: limits only. A program can do whatever the trainer's user can. Only where the user asks for it by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from delta_lightning.sandbox.interpreter import Interpreter
from delta_lightning.sandbox.rung import Launch, Plan, Rung
from delta_lightning.sandbox.slots import Slot


@dataclass(frozen=True, kw_only=True)
class Unsafe(Rung):
    """Resource limits and a session of its own, no isolation at all.

    Args:
        memory_group: whether a memory control group holds each lane.
        process_group: whether a pids control group holds each lane.
    """

    name: ClassVar[str] = "unsafe"

    def obstacle(self) -> str | None:
        """None: it can be entered everywhere, and `Sandbox.open` asks for `allow_unsafe`."""
        return None

    def launch(self, slot: Slot, interpreter: Interpreter, folders: Sequence[str]) -> Launch:
        """The plain interpreter."""
        return Launch(wrapper=(), entry="zygote", plan=Plan(namespaces=False, count_processes=False, folders=tuple(folders)))

    def promises(self) -> frozenset[str]:
        """Only what limits and control groups hold."""
        return frozenset([*(["memory"] if self.memory_group else []), *(["processes"] if self.process_group else [])])

    @property
    def guarantees(self) -> tuple[str, ...]:
        """What holds, a line each."""
        return (
            "memory: address space per process" + (", and a control group for all of a cell" if self.memory_group else ""),
            "processor time and size of files per process; processes that a program leaves behind are hunted down at its end",
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What does not hold, a line each."""
        return (
            "NO ISOLATION: a program can read, write and send whatever the trainer's user can, and kill the trainer",
            "a program that attacks the zygote or the trainer may outlive its cell",
            *(() if self.memory_group else ("the memory of several processes together is not limited",)),
            *(() if self.process_group else ("the number of processes is not limited",)),
        )
