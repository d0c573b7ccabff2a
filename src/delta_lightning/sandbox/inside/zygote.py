"""The trusted process inside the outer sandbox: forks a cell per job, reports its ending, and touches no untrusted byte.

It is told what to do over a control socket (one JSON message with descriptors each). A cell's channels, its argument and the
pipe for its report pass through as descriptors. It ends when the control socket closes or the trainer's process is gone.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from delta_lightning.sandbox.inside import cell, hunt, kernel

MOST = 65536  # bytes of one control message
WATCH = 50  # milliseconds between two looks at the memory of cells


class Job:
    """A cell that runs.

    Args:
        number: the trainer's number for it.
        process: its first process, as this process sees it.
        report: the pipe for its ending.
        memory: bytes that all of its processes together may use.
    """

    def __init__(self, number: int, process: int, report: int, memory: int) -> None:
        self.number, self.process, self.report, self.memory, self.starved = number, process, report, memory, False


class Zygote:
    """Serves one control socket.

    Args:
        plan: the rung's plan (`delta_lightning.sandbox.rung.Plan`).
        control: the socket to the trainer's process.
        owner: a pidfd of the trainer's process.
        doors: per lane, its open `cgroup.procs` files.
        drivers: modules by name, whose functions are the entries of jobs.
    """

    def __init__(
        self, plan: dict[str, Any], control: socket.socket, owner: int, doors: list[list[int]], drivers: dict[str, ModuleType]
    ) -> None:
        self._plan, self._control, self._owner, self._doors, self._drivers = plan, control, owner, doors, drivers
        self._cells: dict[int, Job] = {}  # by pidfd
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if plan["namespaces"] else -1
        self._poll = select.poll()
        for descriptor in (control.fileno(), owner):
            self._poll.register(descriptor, select.POLLIN)

    def serve(self) -> None:
        """Until the control socket closes or the owner ends."""
        while True:
            watched = bool(self._cells) and self._plan["watch_memory"]
            for descriptor, _ in self._poll.poll(WATCH if watched else None):
                if descriptor == self._owner:
                    return
                if descriptor in self._cells:
                    self._bury(descriptor)
                elif descriptor == self._control.fileno() and not self._obey():
                    return
            if watched:
                self._watch()

    def end(self) -> None:
        """Kill what still runs and wait until it is gone."""
        for pidfd in list(self._cells):
            self._strike(pidfd)
            self._bury(pidfd)

    def _obey(self) -> bool:
        try:
            text, descriptors, _, _ = socket.recv_fds(self._control, MOST, 64, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        if not text:
            return False
        order = json.loads(text)
        if order["do"] == "start":
            try:
                self._start(order, descriptors)
            finally:
                for descriptor in descriptors[1:]:
                    os.close(descriptor)
        else:
            for pidfd, job in self._cells.items():
                if job.number == order["number"]:
                    self._strike(pidfd)
        return True

    def _start(self, order: dict[str, Any], descriptors: list[int]) -> None:
        report = descriptors[0]
        try:
            process = self._fork()
        except OSError as error:
            _tell(report, {"failed": f"no new process: {error}"})
            os.close(report)
            return
        if process == 0:
            self._become(order, descriptors)
        pidfd = os.pidfd_open(process)
        self._cells[pidfd] = Job(order["number"], process, report, order["limits"]["memory_mib"] << 20)
        self._poll.register(pidfd, select.POLLIN)

    def _fork(self) -> int:
        """Fork; the child is the first process of a pid namespace of its own, and this process stays in its own."""
        if not self._plan["namespaces"]:
            return os.fork()
        kernel.unshare(kernel.NEWPID)
        process = -1
        try:
            process = os.fork()
        finally:
            if process != 0:
                kernel.setns(self._home, kernel.NEWPID)
        return process

    def _become(self, order: dict[str, Any], descriptors: list[int]) -> None:
        report, argument, *channels = descriptors
        try:
            cell.enter(self._plan, order, self._doors[order["lane"]] if self._doors else [])
            text = os.pread(argument, os.fstat(argument).st_size, 0)
            numbers, report = cell.only(channels, report)
            module, _, function = order["entry"].partition(":")
            job: Callable[[list[int], bytes], object] = getattr(self._drivers[module], function)
            self._forget()
            cell.lock(self._plan)
        except BaseException as error:  # noqa: BLE001 - reported to the trainer, which raises it
            _tell(report, {"failed": f"{type(error).__name__}: {error}"})
            os._exit(1)
        try:
            os.close(report)
            job(numbers, text)
        except BaseException:  # noqa: BLE001 - the job's own failure: its exit code says so
            os._exit(1)
        os._exit(0)

    def _forget(self) -> None:
        self._control.detach()
        self._cells.clear()
        self._doors = []

    def _strike(self, pidfd: int) -> None:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _bury(self, pidfd: int) -> None:
        """After the first process of a pid namespace nothing is left of it; without namespaces, its orphans are hunted."""
        job = self._cells.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status = os.waitpid(job.process, 0)
        if self._plan["seccomp"] is None:
            hunt.orphans({other.process for other in self._cells.values()})
        _tell(job.report, {"status": status, "memory": job.starved})
        os.close(pidfd)
        os.close(job.report)

    def _watch(self) -> None:
        used = hunt.memory({job.process for job in self._cells.values()})
        for pidfd, job in self._cells.items():
            if used[job.process] > job.memory:
                job.starved = True
                self._strike(pidfd)


def _tell(report: int, message: dict[str, Any]) -> None:
    try:
        os.write(report, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        return  # nobody waits for this ending any more


def _module(name: str, text: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)  # a trusted file of the trainer, never a candidate's text
    return module


def main(control: socket.socket, boot: dict[str, Any], descriptors: list[int]) -> None:
    """Run a zygote until its owner is gone; the process ends here."""
    plan = boot["plan"]
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.path.extend(plan["folders"])
    drivers = {name: _module(name, text) for name, text in boot["drivers"].items()}
    owner, _lease, *rest = descriptors
    per_lane = len(rest) // plan["lanes"]
    doors = [rest[lane * per_lane : (lane + 1) * per_lane] for lane in range(plan["lanes"])] if per_lane else []
    with open("/proc/self/statm") as file:
        plan["interpreter_bytes"] = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    plan["zygote"] = os.getpid()
    plan["filter"] = bytes.fromhex(plan["seccomp"] or "")
    zygote = Zygote(plan, control, owner, doors, drivers)
    if plan["landlock"] is not None:
        kernel.no_new_privileges()
        version = kernel.landlock_version()
        kernel.landlock(version, plan["landlock"]["readable"], plan["landlock"]["devices"], walls=True)
    if plan["seccomp"] is None:
        kernel.adopt_orphans()
    if plan["capabilities"]:
        kernel.drop_bounding_set()
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": os.getpid()}).encode())
    zygote.serve()
    zygote.end()
