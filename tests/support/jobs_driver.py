"""Trusted jobs for the tests of the sandbox: each says something about its cell over its channel."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time


def nothing(channels: list[int], argument: bytes) -> None:
    """End at once."""


def echo(channels: list[int], argument: bytes) -> None:
    """Send the argument back on every channel, after its place."""
    for place, channel in enumerate(channels):
        os.write(channel, str(place).encode() + argument[:1000])


def length(channels: list[int], argument: bytes) -> None:
    """Send how long the argument is."""
    os.write(channels[0], str(len(argument)).encode())


def identity(channels: list[int], argument: bytes) -> None:
    """Send who and where it is."""
    status = {}
    with contextlib.suppress(PermissionError), open("/proc/self/status") as file:
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    found = {
        "uid": os.getresuid(),
        "process": os.getpid(),
        "environment": dict(os.environ),
        "status": {name: status.get(name) for name in ("CapEff", "CapBnd", "CapPrm", "NoNewPrivs", "Seccomp")},
        "descriptors": [number for number in range(256) if _is_open(number)],
    }
    os.write(channels[0], json.dumps(found).encode())


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def leave_code(channels: list[int], argument: bytes) -> None:
    """End with the exit code that the argument names."""
    os._exit(int(argument))


def fail(channels: list[int], argument: bytes) -> None:
    """Raise."""
    raise ValueError("as asked")


def crash(channels: list[int], argument: bytes) -> None:
    """A signal from the kernel."""
    import ctypes

    ctypes.string_at(0)


def sleep(channels: list[int], argument: bytes) -> None:
    """Say so, then sleep for an hour, with children where they are allowed."""
    if argument == b"children":
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
    os.write(channels[0], b"!")
    time.sleep(3600)


def detach(channels: list[int], argument: bytes) -> None:
    """End, and leave a daemon behind that keeps the channel open."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)
    os.write(channels[0], b"!")


def spin(channels: list[int], argument: bytes) -> None:
    """Use the processor for ever."""
    while True:
        pass


def fill(channels: list[int], argument: bytes) -> None:
    """Fill memory, in so many processes of so many MiB each; hold it."""
    many, mib = json.loads(argument)
    for _ in range(many - 1):
        if os.fork() == 0:
            break
    block = bytearray(mib << 20)
    for place in range(0, len(block), 4096):
        block[place] = 1
    os.write(channels[0], b"!")
    time.sleep(3600)


def write_files(channels: list[int], argument: bytes) -> None:
    """Where it can write how much, in MiB."""
    found = {}
    for folder in ("/tmp", "/dev/shm", ".", "/usr", "/"):
        written = 0
        try:
            for number in range(64):
                with open(os.path.join(folder, f"file{number}"), "wb") as file:
                    written += file.write(b"x" * (1 << 20))
        except OSError:
            pass
        found[folder] = written >> 20
        for number in range(64):
            try:
                os.unlink(os.path.join(folder, f"file{number}"))
            except OSError:
                break
    os.write(channels[0], json.dumps(found).encode())


def count_threads(channels: list[int], argument: bytes) -> None:
    """How many threads it can have at once."""
    count = 0
    try:
        while count < 200:
            threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    os.write(channels[0], str(count).encode())
    os._exit(0)


def import_from_folder(channels: list[int], argument: bytes) -> None:
    """Import a module from a folder that the sandbox was opened with."""
    import shown_to_the_sandbox  # type: ignore[import-not-found]

    os.write(channels[0], shown_to_the_sandbox.TEXT.encode())


def remember(channels: list[int], argument: bytes) -> None:
    """Say what the job before left in this module and in /tmp, then leave something."""
    found = [name for name in ("left",) if name in globals()] + [name for name in os.listdir("/tmp") if name == "left"]
    globals()["left"] = True
    with open("/tmp/left", "w"):
        pass
    os.write(channels[0], json.dumps(found).encode())
