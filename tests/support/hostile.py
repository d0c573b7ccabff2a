"""Hostile programs, a small judge for them, and how to see from outside whether one had an effect.

Run as a script it judges programs for a test under another uid: arguments are the rung and the limit in seconds, programs come
as JSON lines on standard input, findings go as JSON lines to standard output.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from delta_lightning.sandbox import Ending, Limits, Sandbox

OWN = Path(__file__).parents[1] / "sandbox" / "hostile.jsonl"
DRIVER = Path(__file__).parent / "hostile_driver.py"
GOOD = "def add(a, b):\n    return a + b\n"
TESTS = (((1, 2), 3), ((5, 7), 12), ((-4, 9), 5))
LIMITS = Limits(memory_mib=128, cpu_seconds=4, processes=16, disk_mib=8, open_files=64)
OUTSIDE = Path("/tmp/hostile-outside")
PORT = 45999
_MOST = 1 << 16  # bytes of one answer


@dataclass(frozen=True, kw_only=True)
class Program:
    """One row of a corpus.

    Args:
        id: unique in its corpus.
        category: kind of attack.
        description: what it does.
        code: defines `add(a, b)`.
        expect: what must hold, in words; begins with "must pass", "may pass" or "must not pass".
    """

    id: str
    category: str
    description: str
    code: str
    expect: str

    @property
    def may_pass(self) -> bool:
        return self.expect.startswith(("must pass", "may pass"))

    @property
    def must_pass(self) -> bool:
        return self.expect.startswith("must pass")


def programs(path: Path = OWN) -> list[Program]:
    """The programs of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Program(**{name: row[name] for name in ("id", "category", "description", "code", "expect")}) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one program.

    Args:
        passed: whether all tests agreed.
        reason: why not.
        seconds: from start to the empty cell.
        said: all bytes that came out of the cell, at most 64 KiB.
        survivors: command names of processes below the zygote after the ending was known.
    """

    passed: bool
    reason: str
    seconds: float
    said: str
    survivors: tuple[str, ...]


def judge(sandbox: Sandbox, code: str, *, limit: float, limits: Limits = LIMITS) -> Outcome:
    """Run `code` in a cell, ask it the tests, end it. `limit` is the wall time in seconds of the whole program."""
    began = time.monotonic()
    ours, theirs = socket.socketpair()
    zygote = sandbox.zygote
    said = bytearray()
    with ours:
        with theirs:
            argument = code.encode("utf-8", "surrogatepass")
            cell = sandbox.start("hostile_driver:serve", channels=[theirs], limits=limits, argument=argument)
            zygote = sandbox.zygote
        try:
            reason = _ask(ours, began + limit, said)
        finally:
            ending: Ending = cell.kill()
    seconds = time.monotonic() - began
    assert ending is not None
    left = descendants(zygote) if zygote == sandbox.zygote else ()
    return Outcome(passed=not reason, reason=reason, seconds=seconds, said=said.decode(errors="replace"), survivors=left)


def _ask(channel: socket.socket, deadline: float, said: bytearray) -> str:
    """Empty when every test agreed, else the reason."""
    if _line(channel, deadline, said).get("loaded") is not True:
        return "not loaded"
    for arguments, wanted in TESTS:
        number = secrets.token_hex(8)
        try:
            channel.sendall(json.dumps({"id": number, "arguments": arguments}).encode() + b"\n")
        except OSError as error:
            return f"channel: {error}"
        answer = _line(channel, deadline, said)
        if answer.get("id") != number or type(answer.get("value")) is not int or answer["value"] != wanted:
            return f"add{arguments}: {answer}"[:200]
    return ""


def _line(channel: socket.socket, deadline: float, said: bytearray) -> dict[str, object]:
    text = b""
    while not text.endswith(b"\n"):
        seconds = deadline - time.monotonic()
        if seconds <= 0 or not select.select([channel], [], [], seconds)[0]:
            return {"error": "time"}
        try:
            part = channel.recv(4096)
        except ConnectionError:
            part = b""
        said += part[: _MOST - len(said)]
        text += part
        if not part:
            return {"error": "end"}
        if len(text) > _MOST:
            return {"error": "too long"}
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {"error": "no JSON"}
    return message if isinstance(message, dict) else {"error": "no object"}


def descendants(process: int) -> tuple[str, ...]:
    """Names of the processes below `process`, as the machine sees them."""
    parents, names = {}, {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{number}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
            parents[int(number)], names[int(number)] = int(rest.split()[1]), name
    found: set[int] = set()
    grew = True
    while grew:
        below = {child for child, parent in parents.items() if parent in found | {process}} - found
        found |= below
        grew = bool(below)
    return tuple(f"{names[child]} ({child})" for child in sorted(found))


class Outside:
    """What hostile programs reach for: open folders, a secret, listeners, a process. One at a time on a machine.

    Open the sandbox inside the `with` block: the secret is in this process's environment too.
    """

    def __enter__(self) -> Outside:
        self.secret = secrets.token_hex(16)
        with ExitStack() as stack:
            lock = stack.enter_context(open("/tmp/hostile-outside.lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.folders = [folder for folder in (OUTSIDE, Path("/atk")) if _open_folder(folder, stack)]
            (OUTSIDE / "secret").write_text(self.secret)
            os.environ["HOSTILE_SECRET"] = self.secret
            stack.callback(os.environ.pop, "HOSTILE_SECRET", None)
            self._listeners = [stack.enter_context(socket.create_server(("127.0.0.1", PORT)))]
            for kind, address in ((socket.AF_UNIX, "\0hostile-outside"), (socket.AF_INET, ("127.0.0.1", PORT))):
                form = socket.SOCK_STREAM if kind == socket.AF_UNIX else socket.SOCK_DGRAM
                listener = stack.enter_context(socket.socket(kind, form))
                listener.bind(address)
                if form == socket.SOCK_STREAM:
                    listener.listen()
                self._listeners.append(listener)
            self._victim = subprocess.Popen(["sleep", "3600"])
            stack.callback(self._victim.wait)
            stack.callback(self._victim.kill)
            self._machine, self._offset = _machine(), time.time() - time.monotonic()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def effects(self) -> list[str]:
        """What has been touched since the last call; it is put back."""
        found = []
        for pattern in ("hostile_marker*", "hostile-left*", "hostile[0-9]*", "hostile-fill*", "atk_*"):
            for place in (
                "/",
                "/tmp",
                "/var/tmp",
                "/dev/shm",
                "/run",
                "/etc",
                "/usr",
                "/usr/lib",
                "/root",
                "/home",
                "/opt",
                "/dev",
            ):
                found += glob.glob(f"{place}/{pattern}")
        for folder in self.folders:
            found += [str(path) for path in folder.iterdir() if path.name != "secret"]
        for path in found:
            with suppress(OSError):
                Path(path).unlink()
        for listener in self._listeners:
            while select.select([listener], [], [], 0)[0]:
                found.append(f"a connection or datagram to {listener.getsockname()!r}")
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(100)
        if self._victim.poll() is not None or Path(f"/proc/{self._victim.pid}/stat").read_text().split()[2] in "Tt":
            found.append("the bait process was killed or stopped")
        if _machine() != self._machine:
            found.append(f"the machine's state changed: {self._machine} -> {_machine()}")
        if abs(time.time() - time.monotonic() - self._offset) > 600:
            found.append("the clock was set")
        return found

    def leaks(self, outcome: Outcome) -> bool:
        """Whether the secret came out."""
        return self.secret in outcome.said


def _open_folder(folder: Path, stack: ExitStack) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    folder.chmod(0o777)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return True


def _machine() -> tuple[str, ...]:
    """Host name, core pattern and System V objects."""
    paths = ("/proc/sys/kernel/core_pattern", "/proc/sysvipc/shm", "/proc/sysvipc/msg", "/proc/sysvipc/sem")
    return (socket.gethostname(), *(Path(path).read_text() for path in paths if Path(path).exists()))


def complaints(program: Program, outcome: Outcome, outside: Outside | None, *, limit: float) -> list[str]:
    """What does not hold for `program`; empty when all does. Without `outside` only the verdict, the time and the survivors."""
    found = []
    if outcome.passed and not program.may_pass:
        found.append("it passed")
    if program.must_pass and not outcome.passed:
        found.append(f"a right program failed: {outcome.reason}")
    if outcome.seconds > limit + 1.0:
        found.append(f"the verdict took {outcome.seconds:.2f} s")
    if outcome.survivors:
        found.append(f"left behind: {', '.join(outcome.survivors[:5])}")
    if outside is not None:
        found += outside.effects()
        if outside.leaks(outcome):
            found.append("the secret came out")
    return found


def sample(rows: Sequence[Program], each: int) -> list[Program]:
    """The first `each` programs of every category."""
    kept: dict[str, list[Program]] = {}
    for row in rows:
        kept.setdefault(row.category, []).append(row)
    return [row for group in kept.values() for row in group[:each]]


def _main(rung: str, limit: float, lines: Iterable[str]) -> None:
    with ExitStack() as stack:
        sandbox = Sandbox.open(drivers=[DRIVER], rung=rung)
        stack.callback(sandbox.close)
        for line in lines:
            program = Program(**json.loads(line))
            outcome = judge(sandbox, program.code, limit=limit)
            after = judge(sandbox, GOOD, limit=limit)
            print(json.dumps({"id": program.id, "outcome": asdict(outcome), "after": asdict(after)}), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1], float(sys.argv[2]), sys.stdin)
