"""The probe programs of the self-test: each tries one thing that must not work, and says over its channel whether it did.

They run in a cell, sent there as text: standard library only. The first byte says that the probe runs, so that a cell that
could not start is never taken for a wall that held; then comes one JSON line, unless the kernel ended the cell first.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from typing import Any

_SEVERAL = 4  # processes that each stay below the limit and together do not


def run(channels: list[int], argument: bytes) -> None:
    """Run the probe that `argument` names and send what it found."""
    facts = json.loads(argument)
    os.write(channels[0], b"!")
    found = {
        "files": _files,
        "writes": _writes,
        "network": _network,
        "signals": _signals,
        "processes": _processes,
        "memory": _memory,
        "sight": _sight,
        "survivors": _survivors,
    }[facts["probe"]](facts)
    os.write(channels[0], json.dumps(found).encode() + b"\n")


def _files(facts: dict[str, Any]) -> bool:
    try:
        with open(facts["secret"]) as file:
            return bool(file.read() == facts["nonce"])
    except OSError:
        return False


def _writes(facts: dict[str, Any]) -> bool:
    done = False
    for path in facts["targets"]:
        try:
            with open(path, "w") as file:
                file.write("written from inside")
            done = done or not path.startswith(("/tmp/", "/dev/shm/"))  # those are the cell's own: seen from outside, or not
        except OSError:
            continue
    return done


def _network(facts: dict[str, Any]) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", facts["port"]), timeout=0.5):
            return True
    except OSError:
        pass
    try:
        with socket.socket(socket.AF_UNIX) as local:
            local.connect("\0" + facts["nonce"])
            return True
    except OSError:
        return False


def _signals(facts: dict[str, Any]) -> bool:
    try:
        os.kill(facts["victim"], 9)
    except OSError:
        return False
    return True


def _processes(facts: dict[str, Any]) -> bool:
    for _ in range(facts["most"]):
        try:
            child = os.fork()
        except OSError:
            return False
        if child == 0:
            time.sleep(20)
            os._exit(0)
    return True


def _memory(facts: dict[str, Any]) -> bool:
    """More than the limit in one process, then in several that each stay below it."""
    mib = 1 << 20
    try:
        return len(bytes(2 * facts["memory_mib"] * mib)) > 0 and _touch(2 * facts["memory_mib"] * mib)
    except MemoryError:
        pass
    filled, tell = os.pipe()
    children = []
    for _ in range(_SEVERAL):
        try:
            children.append(os.fork())
        except OSError:
            return False
        if children[-1] == 0:
            _touch(facts["memory_mib"] * mib * 3 // 4)
            os.write(tell, b"!")
            time.sleep(60)
            os._exit(0)
    return _all_live(children, filled)


def _all_live(children: list[int], filled: int) -> bool:
    """Whether all have filled their memory and are still there a while later; on a busy machine both take their time."""
    count, until = 0, time.monotonic() + 6
    while time.monotonic() < until:
        if any(os.waitpid(child, os.WNOHANG) != (0, 0) for child in children):
            return False
        if select.select([filled], [], [], 0.01)[0]:
            count += len(os.read(filled, _SEVERAL))
            until = time.monotonic() + 2 if count == _SEVERAL else until
    return count == _SEVERAL


def _touch(size: int) -> bool:
    block = bytearray(size)
    for place in range(0, size, 4096):
        block[place] = 1
    return True


def _sight(facts: dict[str, Any]) -> bool:
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return False
    for number in numbers:
        try:
            with open(f"/proc/{number}/cmdline") as file:
                if facts["mark"] in file.read():
                    return True
        except OSError:
            continue
    return False


def _survivors(facts: dict[str, Any]) -> bool:
    """The channel stays open as long as anything of this job lives: the caller sees whether it closes."""
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(20)
            os._exit(0)
    except OSError:
        return False
    return False
