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

from delta_lightning.sandbox.inside import cell, kernel

MOST = 65536  # bytes of one control message


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
        self._cells: dict[int, tuple[int, int, int]] = {}  # pidfd -> number, process, report
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if plan["namespaces"] else -1
        self._poll = select.poll()
        for descriptor in (control.fileno(), owner):
            self._poll.register(descriptor, select.POLLIN)

    def serve(self) -> None:
        """Until the control socket closes or the owner ends."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._owner:
                    return
                if descriptor in self._cells:
                    self._bury(descriptor)
                elif descriptor == self._control.fileno() and not self._obey():
                    return

    def end(self) -> None:
        """Kill what still runs and wait until it is gone."""
        for pidfd in list(self._cells):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
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
            for pidfd, (number, _, _) in self._cells.items():
                if number == order["number"]:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
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
        self._cells[pidfd] = (order["number"], process, report)
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

    def _bury(self, pidfd: int) -> None:
        _, process, report = self._cells.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status = os.waitpid(process, 0)
        _tell(report, {"status": status})
        os.close(pidfd)
        os.close(report)


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
    zygote = Zygote(plan, control, owner, doors, drivers)
    if plan["landlock"] is not None:
        kernel.no_new_privileges()
        version = kernel.landlock_version()
        kernel.landlock(version, plan["landlock"]["readable"], plan["landlock"]["devices"], walls=True)
    if plan["capabilities"]:
        kernel.drop_bounding_set()
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": os.getpid()}).encode())
    zygote.serve()
    zygote.end()
