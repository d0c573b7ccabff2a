"""The sandbox of one worker process: a leased slot with a zygote, jobs in cells, a new slot when one is given up."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.sandbox import slots
from delta_lightning.sandbox.cell import PATIENCE, Cell
from delta_lightning.sandbox.cgroups import LaneGroup, lane_groups
from delta_lightning.sandbox.interpreter import Interpreter
from delta_lightning.sandbox.ladder import wanted
from delta_lightning.sandbox.landlock import Landlock
from delta_lightning.sandbox.limits import Limits
from delta_lightning.sandbox.outpost import START, Outpost, ZygoteGoneError
from delta_lightning.sandbox.rung import Rung, may_change_uid
from delta_lightning.sandbox.slots import threads_of

_TRIAL = "_trial"
_TRIAL_TEXT = "def run(channels, argument):\n    import colorsys\n"  # any module that nothing has imported yet

_abandoned: list[Outpost] = []  # slots left to die: their leases are held until they are empty


class Sandbox:
    """An open sandbox. Build it with `open`; one per process, its two lanes run two jobs at once.

    Args:
        rung: the rung it has entered.
        drivers: text of the driver modules by name.
        interpreter: the Python inside.
        folders: on `sys.path` inside.
        outpost: the running zygote.
        refused: why the better rungs could not be entered, a line each.
    """

    def __init__(
        self,
        *,
        rung: Rung,
        drivers: Mapping[str, str],
        interpreter: Interpreter,
        folders: Sequence[str],
        outpost: Outpost,
        refused: Sequence[str] = (),
    ) -> None:
        self.rung = rung
        self.refused = tuple(refused)
        self._drivers, self._interpreter, self._folders = drivers, interpreter, folders
        self._outpost: Outpost | None = outpost
        self._lock = threading.Lock()
        self._number = 0
        self._busy: dict[int, int] = {}

    @classmethod
    def open(
        cls,
        *,
        drivers: Sequence[Path],
        rung: str = "auto",
        allow_unsafe: bool = False,
        folders: Sequence[Path] = (),
        python: str | None = None,
    ) -> Sandbox:
        """Enter the first rung that this machine allows.

        Args:
            drivers: files of the standard library's Python only, whose functions are the entries of jobs; trusted.
            rung: a rung's name, or `auto` for the best one.
            allow_unsafe: whether `auto` may end at the rung without isolation.
            folders: shown read-only and put on `sys.path` inside (site-packages, for numpy).
            python: the interpreter inside; the base interpreter of this process when None.

        Raises:
            ConfigError: no rung can be entered, or a driver or folder is not there.
        """
        texts = {_TRIAL: _TRIAL_TEXT}
        for driver in drivers:
            require(driver.is_file(), "sandbox drivers", wanted="files", got=str(driver), remedy="Correct the path.")
            texts[driver.stem] = driver.read_text()
        paths = [os.path.realpath(folder) for folder in folders]
        interpreter = Interpreter.find(folders, python)
        refused: list[str] = []
        for kind in wanted(rung, allow_unsafe=allow_unsafe):
            candidate: Rung = kind()
            reason = candidate.obstacle()
            if reason is None:
                try:
                    candidate, outpost = _enter(candidate, interpreter, texts, paths)
                    sandbox = cls(
                        rung=candidate,
                        drivers=texts,
                        interpreter=interpreter,
                        folders=paths,
                        outpost=outpost,
                        refused=refused,
                    )
                    sandbox._try()
                    return sandbox
                except RunError as error:
                    reason = str(error)
            refused.append(f"{kind.name}: {reason}")
        raise ConfigError(
            "sandbox",
            wanted="a way to run programs apart from this machine" if rung == "auto" else f"the rung {rung}",
            got="; ".join(refused),
            remedy="Install bubblewrap (apt install bubblewrap) or allow namespaces or Landlock in this container; see "
            "docs/sandbox.md. Only for programs that you trust: allow_unsafe: true.",
        )

    @property
    def zygote(self) -> int:
        """Process number of the running zygote on this machine, 0 while there is none: to look at it from outside."""
        return 0 if self._outpost is None else self._outpost.zygote_process

    def start(
        self,
        entry: str,
        *,
        channels: Sequence[socket.socket | int],
        limits: Limits,
        lane: int = 0,
        argument: bytes = b"",
    ) -> Cell:
        """Start a job in a new cell and return at once.

        Args:
            entry: `driver:function`; the function gets the channels' numbers and `argument`, and runs in the cell.
            channels: sockets or descriptors that the job may use; the caller keeps its own copies and closes them.
            limits: what the job may use.
            lane: 0 or 1; one job at a time in each.
            argument: bytes for the function, of any length; the zygote never reads them.

        Raises:
            ConfigError: an entry that no driver has, or a lane that is none.
            RunError: the lane is busy, or the zygote cannot be reached or replaced.
        """
        module, _, function = entry.partition(":")
        require(module in self._drivers and function.isidentifier(), "entry", wanted=f"function of {sorted(self._drivers)}",
                got=entry, remedy="Write driver:function.")  # fmt: skip
        require(lane in range(slots.LANES), "lane", wanted="0 or 1", got=lane, remedy="Use one of the two lanes.")
        with self._lock:
            outpost = self._ready()
            if lane in self._busy:
                raise RunError(f"Lane {lane} of the sandbox still runs a job: wait for it or kill it first.")
            try:
                return self._start(outpost, entry, channels, limits, lane, argument)
            except ZygoteGoneError:  # it died since the last job: once more with a new one
                _let_go(outpost)
                self._outpost = None
                return self._start(self._ready(), entry, channels, limits, lane, argument)

    def _start(
        self,
        outpost: Outpost,
        entry: str,
        channels: Sequence[socket.socket | int],
        limits: Limits,
        lane: int,
        argument: bytes,
    ) -> Cell:
        self._number += 1
        number, group = self._number, outpost.groups[lane]
        try:
            group.limit(memory_mib=limits.memory_mib, processes=limits.processes)
        except OSError as error:
            raise RunError(f"The sandbox's control group refuses the limits {limits}: {error}") from error
        kills = group.kills()
        order = {
            "do": "start",
            "number": number,
            "entry": entry,
            "lane": lane,
            "limits": asdict(limits),
            "other_processes": _other_processes(outpost),
        }
        read, write = os.pipe2(os.O_CLOEXEC)
        text = os.memfd_create("argument")
        with ExitStack() as undo:
            undo.callback(os.close, read)
            try:
                _write(text, argument)
                numbers = [channel if isinstance(channel, int) else channel.fileno() for channel in channels]
                outpost.send(order, [write, text, *numbers])
            finally:
                os.close(write)
                os.close(text)
            undo.pop_all()  # it started: the cell reads the pipe from here on
        self._busy[lane] = number
        return Cell(
            report=read,
            strike=lambda: outpost.send({"do": "kill", "number": number}),
            leave=lambda: self._leave(outpost),
            starved=lambda: group.kills() > kills,
            sweep=lambda: outpost.plan.namespaces or group.sweep(PATIENCE),
            ended=lambda: self._free(lane, number),
            given_up=lambda: outpost.given_up,
            last_words=outpost.last_words,
        )

    def close(self) -> None:
        """Kill what runs, end the zygote, give the slot back."""
        with self._lock:
            if self._outpost is not None:
                _let_go(self._outpost)
            self._outpost = None
            self._busy.clear()

    def _try(self) -> None:
        """One cell: a rung whose zygote starts may still not be allowed to make one (uids, mounts, unreadable interpreter).

        Raises:
            RunError: it cannot; the text says why.
        """
        with ExitStack() as undo:
            undo.callback(self.close)
            with self.start(f"{_TRIAL}:run", channels=[], limits=Limits()) as cell:
                ending = cell.wait(START)
            if ending is None or ending.exit_code != 0:
                raise RunError(f"the first cell did not run as it should: {ending}")
            undo.pop_all()

    def _ready(self) -> Outpost:
        """The running zygote; a new one after the last was given up or died."""
        if self._outpost is not None and self._outpost.ended():
            _let_go(self._outpost)
            self._outpost = None
        if self._outpost is None:
            self._busy.clear()
            _, self._outpost = _enter(self.rung, self._interpreter, self._drivers, self._folders)
        return self._outpost

    def _leave(self, outpost: Outpost) -> None:
        with self._lock:
            outpost.given_up = True  # before the kill: its other lane's cell must not take it for a failure
            outpost.kill()
            _abandoned.append(outpost)
            if self._outpost is outpost:
                self._outpost = None
                self._busy.clear()

    def _free(self, lane: int, number: int) -> None:
        with self._lock:
            if self._busy.get(lane) == number:
                del self._busy[lane]


_OTHERS = 4  # the zygote, bubblewrap and the other lane's first processes, where all share a uid in a namespace of theirs
_MARGIN = 256  # processes and threads that the trainer's user may start while a cell runs, where the kernel counts them too


def _other_processes(outpost: Outpost) -> int:
    """How many processes and threads that are not the cell's the kernel counts against its limit."""
    if outpost.plan.uids is not None:
        return 0
    return _OTHERS if outpost.plan.namespaces else threads_of(os.geteuid()) + _MARGIN


def _enter(rung: Rung, interpreter: Interpreter, drivers: Mapping[str, str], folders: Sequence[str]) -> tuple[Rung, Outpost]:
    """Lease a slot, make its groups, start the zygote; the rung with what was found about groups and uid.

    Raises:
        RunError: the zygote could not be started.
    """
    _abandoned[:] = [outpost for outpost in _abandoned if not outpost.bury()]
    slot, groups = _empty_slot()
    rung = replace(
        rung,
        memory_group=all("memory" in group.folders for group in groups),
        process_group=all("pids" in group.folders for group in groups),
    )
    if isinstance(rung, Landlock):
        rung = replace(rung, own_uid=may_change_uid(interpreter))
    with ExitStack() as undo:
        undo.callback(slot.release)
        for group in groups:
            undo.callback(group.remove)
        outpost = Outpost.open(rung, slot, groups, interpreter=interpreter, drivers=drivers, folders=folders)
        undo.pop_all()  # the outpost holds them from here on
    return rung, outpost


def _empty_slot() -> tuple[slots.Slot, list[LaneGroup]]:
    """A slot whose control groups are empty: those of one whose last holder died may still hold a process."""
    skipped: list[slots.Slot] = []
    try:
        while True:
            slot = slots.lease()
            groups = lane_groups(f"delta-lightning-{os.geteuid()}-{slot.number}", slots.LANES)
            if all(group.empty() for group in groups):
                return slot, groups
            skipped.append(slot)
    finally:
        for slot in skipped:
            slot.release()


def _let_go(outpost: Outpost) -> None:
    if not outpost.close(PATIENCE):
        _abandoned.append(outpost)


def _write(descriptor: int, text: bytes) -> None:
    view = memoryview(text)
    while view:
        view = view[os.write(descriptor, view) :]
