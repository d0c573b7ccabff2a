"""One zygote in one slot: started, spoken to, given up."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from delta_lightning.errors import RunError
from delta_lightning.sandbox import slots
from delta_lightning.sandbox.bwrap import ENVIRONMENT
from delta_lightning.sandbox.cgroups import LaneGroup
from delta_lightning.sandbox.interpreter import Interpreter
from delta_lightning.sandbox.rung import Plan, Rung

START = 10.0  # seconds within which a zygote must be ready
# Read once: a package that is changed or updated during a run must not send half of itself inside.
_INSIDE = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "inside").glob("*.py"))}
_PACKAGES = ("delta_lightning", "delta_lightning.sandbox", "delta_lightning.sandbox.inside")
_BOOT = """
import json, os, socket, sys, types
control = socket.socket(fileno=int(sys.argv[1]))
_, descriptors, _, _ = socket.recv_fds(control, 64, 64, socket.MSG_CMSG_CLOEXEC)
if not descriptors: sys.exit("the trainer is gone")
boot = json.loads(os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0))
os.close(descriptors[0])
for name in boot["packages"]:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, text in boot["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, "<" + name + ">", "exec"), module.__dict__)
module.main(control, boot, descriptors[1:])
"""


class ZygoteGoneError(RunError):
    """The zygote has ended: our failure, never the job's."""


@dataclass(kw_only=True)
class Outpost:
    """A started zygote. Build it with `open`.

    Args:
        slot: its leased slot.
        groups: the control groups of its lanes.
        control: the socket to the zygote.
        process: the command that was started (bubblewrap, or the zygote itself).
        zygote: a pidfd of the zygote: readable when it has ended and, with namespaces, nothing of it is left.
        errors: a file in memory with what the zygote wrote to its standard error.
        plan: what it was told to do.
        given_up: whether it was left to die because a cell did not become empty.
    """

    slot: slots.Slot
    groups: Sequence[LaneGroup]
    control: socket.socket
    process: subprocess.Popen[bytes]
    zygote: int
    errors: int
    plan: Plan
    given_up: bool = False

    @classmethod
    def open(
        cls,
        rung: Rung,
        slot: slots.Slot,
        groups: Sequence[LaneGroup],
        *,
        interpreter: Interpreter,
        drivers: Mapping[str, str],
        folders: Sequence[str],
    ) -> Outpost:
        """Start a zygote and wait until it is ready.

        Raises:
            RunError: it could not be started; the text says why.
        """
        launch = rung.launch(slot, interpreter, folders)
        modules = ["kernel", "hunt", "cell", "zygote", *(["enter"] if launch.entry == "enter" else [])]
        boot = {
            "packages": _PACKAGES,
            "modules": [(f"{_PACKAGES[-1]}.{name}", _INSIDE[name]) for name in modules],
            "drivers": dict(drivers),
            "plan": asdict(launch.plan),
        }
        with ExitStack() as stack:
            errors = os.memfd_create("errors")
            stack.callback(os.close, errors)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # Isolated but for PYTHONHASHSEED, which -I would ignore; nothing of the trainer's environment is left.
            command = [*launch.wrapper, interpreter.program, "-s", "-P", "-S", "-B", "-c", _BOOT, str(theirs.fileno())]
            try:
                process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    env=ENVIRONMENT,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise RunError(f"{command[0]}: {error}") from error
            finally:
                theirs.close()
            try:
                zygote = _greet(ours, boot, slot, groups)
            except OSError as error:
                ours.close()
                process.kill()
                process.wait()
                raise RunError(_last_words(errors) or f"the zygote did not start: {error}") from error
            stack.pop_all()
        return cls(slot=slot, groups=groups, control=ours, process=process, zygote=zygote, errors=errors, plan=launch.plan)

    def send(self, order: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send one order.

        Raises:
            ZygoteGoneError: it cannot be reached any more.
        """
        try:
            socket.send_fds(self.control, [json.dumps(order).encode()], list(descriptors))
        except OSError as error:
            raise ZygoteGoneError(f"The sandbox's zygote is gone: {error}") from error

    @property
    def zygote_process(self) -> int:
        """The zygote's process number on this machine; -1 when it is gone."""
        with open(f"/proc/self/fdinfo/{self.zygote}") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))

    def ended(self) -> bool:
        """Whether the zygote has ended."""
        return _readable(self.zygote, 0.0)

    def last_words(self) -> str:
        """Why the zygote died, if it said so."""
        return _last_words(self.errors)

    def empty(self) -> bool:
        """Whether the zygote and everything in its namespaces and control groups has ended."""
        return _readable(self.zygote, 0.0) and all(group.empty() for group in self.groups)

    def kill(self) -> None:
        """SIGKILL to the zygote; with namespaces the kernel ends everything below it."""
        self.control.close()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.zygote, signal.SIGKILL)
        if not self.plan.namespaces:
            for group in self.groups:
                group.sweep(0.2)  # no namespace ends its cells' processes with it

    def close(self, seconds: float) -> bool:
        """End it: closing the control socket makes the zygote kill its cells and end. True when nothing of it is left."""
        self.control.close()
        if not _readable(self.zygote, seconds):
            self.kill()
            if not _readable(self.zygote, seconds):
                return False
        return self.bury()

    def bury(self) -> bool:
        """Give slot and groups back if everything has ended; False otherwise."""
        if not self.empty():
            return False
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for group in self.groups:
            group.remove()
        os.close(self.zygote)
        os.close(self.errors)
        self.slot.release()
        return True


def _greet(ours: socket.socket, boot: Mapping[str, Any], slot: slots.Slot, groups: Sequence[LaneGroup]) -> int:
    """Send the zygote its program and plan, wait for its answer; a pidfd of it."""
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ours.settimeout(START)
    payload, owner = os.memfd_create("boot"), os.pidfd_open(os.getpid())
    try:
        with open(payload, "wb", closefd=False) as file:
            file.write(json.dumps(boot).encode())
        doors = [door for group in groups for door in group.doors()]
        socket.send_fds(ours, [b"boot"], [payload, owner, slot.descriptor, *doors])
    finally:
        os.close(payload)
        os.close(owner)
    answer, ancillary, _, _ = ours.recvmsg(65536, socket.CMSG_SPACE(12))
    if not answer:
        raise ConnectionError("it ended at once")
    for _level, kind, data in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            process, _, _ = struct.unpack("=iII", data[:12])
            ours.settimeout(None)
            return os.pidfd_open(process)
    raise ConnectionError("it did not say who it is")


def _last_words(errors: int) -> str:
    """The last line of a dead zygote's standard error."""
    lines = os.pread(errors, os.fstat(errors).st_size, 0).decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
