"""Does the sandbox hold what it promises on this machine? Eight programs try to get out."""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.sandbox.limits import Limits
from delta_lightning.sandbox.report import Report
from delta_lightning.sandbox.rung import PROBES
from delta_lightning.sandbox.sandbox import Sandbox

_LIMITS = Limits(memory_mib=64, cpu_seconds=5, processes=8, disk_mib=1, open_files=64)
_WAIT = 20.0  # seconds for one probe; the slowest takes half a second on a quiet machine


def self_test(
    rung: str = "auto", *, allow_unsafe: bool = False, python: str | None = None, sandbox: Sandbox | None = None
) -> Report:
    """Run the probe programs and compare what they could do with what the rung promises. Takes about a second.

    Args:
        rung: a rung's name, or `auto` for the best one.
        allow_unsafe: as for `Sandbox.open`.
        python: as for `Sandbox.open`.
        sandbox: an open sandbox with the driver `probes` to test instead; it stays open.

    Raises:
        ConfigError: no rung can be entered, or a probe got through that the rung promises to stop.
        RunError: a probe could not be run.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        if sandbox is None:
            probes = Path(__file__).parent / "probes.py"
            sandbox = Sandbox.open(drivers=[probes], rung=rung, allow_unsafe=allow_unsafe, python=python)
            stack.callback(sandbox.close)
        bait = stack.enter_context(_bait())
        got_through = {name: _probe(sandbox, name, bait) for name in PROBES}
    promised = sandbox.rung.promises()
    broken = sorted(name for name, through in got_through.items() if through and name in promised)
    if broken:
        raise ConfigError(
            f"sandbox rung {sandbox.rung.name}",
            wanted="probe programs that are stopped as it promises",
            got=f"programs that got through: {', '.join(broken)}",
            remedy="Choose another rung (docs/sandbox.md) and report this with the kernel's version.",
        )
    return Report(rung=sandbox.rung, open=got_through, refused=sandbox.refused, seconds=time.monotonic() - began)


@dataclass(frozen=True, kw_only=True)
class _Bait:
    """What the probes reach for outside, and how to see whether they did."""

    facts: Mapping[str, Any]
    listeners: tuple[socket.socket, ...]
    victim: subprocess.Popen[bytes]
    targets: tuple[Path, ...]


@contextmanager
def _bait() -> Iterator[_Bait]:
    nonce = secrets.token_hex(16)
    mark = f"{10_000_000 + secrets.randbelow(10_000_000)}.5"
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="delta-lightning-probe-")))
        place.chmod(0o777)  # open to everybody: only the sandbox keeps the probes out
        (place / "secret").write_text(nonce)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind("\0" + nonce)
        local.listen()
        victim = subprocess.Popen(["sleep", mark], stdin=subprocess.DEVNULL, env={"PATH": os.defpath})
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        targets = (place / "written", Path(f"/dev/shm/{nonce}"), Path(tempfile.gettempdir()) / nonce)
        for target in targets:
            stack.callback(target.unlink, missing_ok=True)
        facts = {
            "secret": str(place / "secret"),
            "nonce": nonce,
            "targets": [str(target) for target in targets],
            "port": tcp.getsockname()[1],
            "victim": victim.pid,
            "mark": mark,
            "most": 4 * _LIMITS.processes,
            "memory_mib": _LIMITS.memory_mib,
        }
        yield _Bait(facts=facts, listeners=(tcp, local), victim=victim, targets=targets)


def _probe(sandbox: Sandbox, name: str, bait: _Bait) -> bool:
    """Whether the probe got through, by its own word or by what is seen from outside."""
    ours, theirs = socket.socketpair()
    with ours:
        argument = json.dumps({**bait.facts, "probe": name}).encode()
        with theirs:
            cell = sandbox.start("probes:run", channels=[theirs], limits=_LIMITS, argument=argument)
        with cell:
            said = _listen(ours, name)
            if said == b"" and cell.wait(_WAIT) is None:
                raise RunError(f"The probe program {name} of the sandbox's self-test did not end.")
            if not said.startswith(b"!"):
                raise RunError(f"The probe program {name} of the sandbox's self-test did not run.")
            if name != "survivors":
                cell.kill()
            elif cell.wait(_WAIT) is None:
                raise RunError("The probe program survivors of the sandbox's self-test did not end.")
        through = said[1:].strip() == b"true"
        if name == "survivors":
            return not _at_end(ours)
        return through or _seen_outside(name, bait)


def _listen(channel: socket.socket, name: str) -> bytes:
    """All that the probe says, until its line is whole or nobody can speak any more."""
    said, deadline = b"", time.monotonic() + _WAIT
    while not said.endswith(b"\n"):
        channel.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            part = channel.recv(4096)
        except TimeoutError as error:
            raise RunError(f"The probe program {name} of the sandbox's self-test gave no answer in {_WAIT:g} s.") from error
        except ConnectionError:
            break
        if not part:
            break
        said += part
    return said


def _at_end(channel: socket.socket) -> bool:
    channel.settimeout(0.2)
    try:
        return channel.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def _seen_outside(name: str, bait: _Bait) -> bool:
    if name == "writes":
        return any(target.exists() for target in bait.targets)
    if name == "network":
        return bool(select.select(bait.listeners, [], [], 0)[0])
    if name == "signals":
        return bait.victim.poll() is not None
    return False
