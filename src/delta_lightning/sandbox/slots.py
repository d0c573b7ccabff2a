"""Leases of slots: two jobs of this machine never share a uid or a control group, whichever run or rank they belong to.

A slot is a file locked with flock(2). The lock ends with the last process that has it open: the trainer's and the zygote, which
is given it too, so that a slot is not leased again while its zygote lives. A slot whose uids still have processes is skipped.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from delta_lightning.errors import RunError

FIRST_UID = 60000
SLOTS = 1000
LANES = 2


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A leased slot.

    Args:
        number: 0 to 999.
        descriptor: the open, locked file.
    """

    number: int
    descriptor: int = field(repr=False)

    @property
    def uids(self) -> tuple[int, ...]:
        """The uids of its lanes, for a process that may change its uid."""
        return tuple(FIRST_UID + LANES * self.number + lane for lane in range(LANES))

    def release(self) -> None:
        """End this process's part of the lease."""
        os.close(self.descriptor)


def folder() -> Path:
    """Where the lock files of this user lie; made if it is not there.

    Raises:
        RunError: somebody else owns it.
    """
    uid = os.geteuid()
    base = Path("/run") if uid == 0 and os.access("/run", os.W_OK) else Path(tempfile.gettempdir())
    path = base / f"delta-lightning-slots-{uid}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if status.st_uid != uid or path.is_symlink() or status.st_mode & 0o022:
        raise RunError(f"{path}: the folder of the sandbox's locks belongs to somebody else or is open to others. Remove it.")
    return path


def lease() -> Slot:
    """The first slot that nobody holds and nothing runs in.

    Raises:
        RunError: all are taken.
    """
    place, busy = folder(), _uids_with_processes() if os.geteuid() == 0 else frozenset[int]()
    for number in range(SLOTS):
        descriptor = os.open(place / f"{number:03d}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        slot = Slot(number=number, descriptor=descriptor)
        if busy.isdisjoint(slot.uids) and not any(_named(uid) for uid in slot.uids):
            return slot
        slot.release()
    raise RunError(f"All {SLOTS} slots of the sandbox are taken ({place}). End other runs of this machine.")


def _named(uid: int) -> bool:
    """Whether somebody's account has this uid."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def threads_of(uid: int) -> int:
    """Processes and threads of `uid` on this machine, as far as they can be seen; at most a second old."""
    now = time.monotonic()
    if _counted.get(uid, (0, -1.0))[1] < now - 1:
        total = 0
        for name in filter(str.isdigit, os.listdir("/proc")):
            fields = _status(name)
            if fields.get("Uid", "").split()[:1] == [str(uid)]:
                total += int(fields.get("Threads", "1"))
        _counted[uid] = (total, now)
    return _counted[uid][0]


_counted: dict[int, tuple[int, float]] = {}


def _uids_with_processes() -> frozenset[int]:
    numbers = filter(str.isdigit, os.listdir("/proc"))
    return frozenset(int(fields["Uid"].split()[0]) for number in numbers if (fields := _status(number)))


def _status(process: str) -> dict[str, str]:
    """The fields of /proc/*/status; none for a process that has just ended."""
    try:
        with open(f"/proc/{process}/status") as file:
            return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    except (FileNotFoundError, ProcessLookupError):
        return {}
