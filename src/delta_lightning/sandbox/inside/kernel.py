"""The system calls that the standard library of Python 3.11 does not offer, by ctypes. Every failure is an OSError."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

MS_REMOUNT = 32
NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _LANDLOCK = 442, 444  # the same numbers on every architecture
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name. NEWPID holds for children only."""
    _checked(_libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespace of an open /proc/*/ns file."""
    _checked(_libc.setns(descriptor, flags), "setns")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    raw = [text.encode() if text is not None else None for text in (source, target, kind)]
    result = _libc.mount(raw[0], raw[1], raw[2], ctypes.c_ulong(flags), data.encode() if data is not None else None)
    _checked(result, f"mount {target}")


def unmount(target: str) -> None:
    """Detach everything mounted at `target`."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2); OSError where this architecture's number is not known."""
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root: no system call table for {os.uname().machine}")
    _checked(_libc.syscall(number, new.encode(), old.encode()), "pivot_root")


def read_only(tree: str) -> None:
    """Make every mount below `tree` read-only, without set-user-id programs and devices (Linux 5.12)."""
    attributes = struct.pack("=QQQQ", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    result = _libc.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, tree.encode(), _AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes))
    )
    _checked(result, f"mount_setattr {tree}")


def prctl(option: int, value: int = 0) -> int:
    """prctl(2) with one number."""
    return _checked(
        _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)), "prctl"
    )


def no_new_privileges() -> None:
    """No program that is run from here on gains anything by being set-user-id."""
    prctl(38, 1)


def die_with_parent() -> None:
    """SIGKILL when the thread that forked this process ends."""
    prctl(1, 9)


def adopt_orphans() -> None:
    """Processes whose parent ends become children of this one, however they detached themselves."""
    prctl(36, 1)


def drop_bounding_set() -> None:
    """No program run from here on can gain a capability; where this process may not say so, `no_new_privileges` alone does.

    Ends at the first number that the kernel does not know.
    """
    for capability in range(64):
        if _libc.prctl(24, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            if ctypes.get_errno() in (errno.EINVAL, errno.EPERM):
                return
            _checked(-1, "prctl(PR_CAPBSET_DROP)")


def drop_capabilities() -> None:
    """Empty this process's permitted, effective and inheritable sets (and so the ambient one)."""
    header = struct.pack("=Ii", 0x20080522, 0)
    _checked(_libc.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)), "capset")


def install_filter(program: bytes) -> None:
    """Install a seccomp filter of assembled BPF instructions; it holds for this process and all it makes."""
    text = ctypes.create_string_buffer(program, len(program))
    argument = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    _checked(_libc.prctl(22, ctypes.c_ulong(2), argument, ctypes.c_ulong(0), ctypes.c_ulong(0)), "seccomp")


def landlock_version() -> int:
    """Landlock's version in this kernel, or 0 where it is absent or switched off."""
    return max(0, int(_libc.syscall(_LANDLOCK, None, ctypes.c_size_t(0), 1)))


_FILE_EXECUTE, _FILE_WRITE, _FILE_READ, _DIR_READ = 1, 2, 4, 8


def landlock(version: int, readable: list[str], devices: list[str], *, walls: bool) -> None:
    """Close the file system but for `readable` trees (read, run) and `devices` (read, write), and the network and signals.

    Args:
        version: what `landlock_version` said; what it does not know is left out.
        readable: folders and files; those that are not there are left out.
        devices: files that may be read and written.
        walls: from version 6 also forbid signals and abstract sockets to processes outside this one and its children.
    """
    files = (1 << 13) - 1
    files |= sum(1 << bit for bit, since in ((13, 2), (14, 3), (15, 5)) if version >= since)
    attributes = struct.pack("=QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 and walls else 0)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _checked(_libc.syscall(_LANDLOCK, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock_create_ruleset")
    try:
        for path, access in [*((p, _FILE_EXECUTE | _FILE_READ | _DIR_READ) for p in readable), *((p, 6) for p in devices)]:
            _allow(rules, path, access)
        _checked(_libc.syscall(_LANDLOCK + 2, rules, 0), "landlock_restrict_self")
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    if not os.path.exists(path):
        return
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        access &= ~_DIR_READ if not os.path.isdir(path) else -1
        rule = struct.pack("=Qi", access, descriptor)
        _checked(_libc.syscall(_LANDLOCK + 1, rules, 1, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(descriptor)


def landlock_walls() -> None:
    """One more domain for this process alone, so that it cannot signal its parent's domain (version 6)."""
    attributes = struct.pack("=QQQ", 0, 0, 3)
    rules = _checked(_libc.syscall(_LANDLOCK, attributes, ctypes.c_size_t(24), 0), "landlock_create_ruleset")
    try:
        _checked(_libc.syscall(_LANDLOCK + 2, rules, 0), "landlock_restrict_self")
    finally:
        os.close(rules)
