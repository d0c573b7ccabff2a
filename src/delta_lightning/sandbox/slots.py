"""Leases of slots: two jobs of this machine never share a uid or a control group, whichever run or rank they belong to.

A slot is a file locked with flock(2). The lock ends with the last process that has it open: the trainer's and the zygote, which
is given it too, so that a slot is not leased again while its zygote lives. A slot whose uids still have processes is skipped.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
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
        if busy.isdisjoint(slot.uids):
            return slot
        slot.release()
    raise RunError(f"All {SLOTS} slots of the sandbox are taken ({place}). End other runs of this machine.")


def _uids_with_processes() -> frozenset[int]:
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            found.update(_real_uid(name))
    return frozenset(found)


def _real_uid(process: str) -> tuple[int, ...]:
    try:
        with open(f"/proc/{process}/status") as file:
            return tuple(int(line.split()[1]) for line in file if line.startswith("Uid:"))
    except (FileNotFoundError, ProcessLookupError):
        return ()
