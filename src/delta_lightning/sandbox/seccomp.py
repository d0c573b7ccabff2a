"""The system call filter: a small assembler of classic BPF, and what is denied.

Written out rather than taken from libseccomp: the filter is a list of numbers and four comparisons, and a binding would need
a C library on every machine. Default allow, because the namespaces and the uid are the walls; the filter closes what reaches
past them and the kernel's least tested corners. Denied calls answer EPERM, as for a program without rights.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from delta_lightning.sandbox import syscalls

MARKER = 0x7FD1A0D1  # stands for the cell's own process number until the cell, which alone knows it, puts it in

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16
_NEW_NAMESPACES = 0x7E020000  # of clone(2)'s flags
_CLONE_THREAD = 0x00010000
_PDEATHSIG = 1
_TERMINAL = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX type into the terminal of whoever started the run

_SETOWN = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: the kernel then sends any signal to any process of the same user
_OWNERS = (0x8901, 0x8902)  # FIOSETOWN and SIOCSPGRP, the same by ioctl(2)

DENIED = (
    *("socket", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"),
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick"),
    *("mount_setattr", "swapon", "swapoff", "unshare", "setns"),
    *("bpf", "perf_event_open", "io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "iopl", "ioperm"),
    *("modify_ldt", "acct", "quotactl", "quotactl_fd", "nfsservctl", "lookup_dcookie", "syslog", "vhangup"),
    *("sethostname", "setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex"),
    *("name_to_handle_at", "open_by_handle_at", "fanotify_init", "fanotify_mark", "personality", "seccomp", "uselib"),
    *("sysfs", "keyctl", "add_key", "request_key", "memfd_create", "memfd_secret", "migrate_pages", "move_pages"),
    *("shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semtimedop", "semctl"),
    *("msgget", "msgsnd", "msgrcv", "msgctl"),
    *("mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr"),
    *("sched_setscheduler", "sched_setattr", "sched_setparam", "setpriority", "ioprio_set"),
)

ALONE = (  # also denied where no namespace holds the cell: other processes, and what Landlock does not control
    *("fork", "vfork", "execve", "execveat", "tkill", "rt_sigqueueinfo", "pidfd_send_signal", "pidfd_open"),
    *("process_mrelease", "sched_setaffinity", "setpgid"),
    *("chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "utimensat", "futimesat"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "truncate"),
    *("inotify_init", "inotify_init1", "inotify_add_watch", "mknod", "mknodat"),
)


def assemble(*, alone: bool, machine: str | None = None) -> str | None:
    """The filter in hexadecimal, None on an architecture that has no table here.

    Args:
        alone: also forbid every process but the cell's first one (threads stay) and signals to others; `MARKER` stands for it.
        machine: x86_64 or aarch64; this machine's when None.
    """
    machine = os.uname().machine if machine is None else machine
    if machine not in syscalls.AUDIT:
        return None
    program = [
        *_when(_LOAD, _ARCH_AT),
        (_EQUAL, 1, 0, syscalls.AUDIT[machine]),
        (_RETURN, 0, 0, _KILL),  # a call by another architecture's numbers
        *_when(_LOAD, _NUMBER_AT),
        (_AT_LEAST, 0, 1, syscalls.NEWEST),  # x32's numbers too
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]
    for name in (*DENIED, *(ALONE if alone else ())):
        program += _for_call(name, machine, [(_RETURN, 0, 0, _ERRNO | _EPERM)])
    program += _for_call("clone3", machine, [(_RETURN, 0, 0, _ERRNO | _ENOSYS)])  # its flags cannot be read: use clone
    program += _for_call("clone", machine, _clone(alone))
    program += _for_call("prctl", machine, _refuse(0, (_PDEATHSIG,)))
    program += _for_call("ioctl", machine, _refuse(1, (*_TERMINAL, *(_OWNERS if alone else ()))))
    if alone:
        program += _for_call("fcntl", machine, _refuse(1, _SETOWN))
        for name in ("kill", "tgkill", "rt_tgsigqueueinfo"):
            program += _for_call(name, machine, _only(0, (MARKER,)))
        program += _for_call("prlimit64", machine, _only(0, (0, MARKER)))
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in program).hex()


Step = tuple[int, int, int, int]


def _when(code: int, value: int) -> list[Step]:
    return [(code, 0, 0, value)]


def _for_call(name: str, machine: str, then: Sequence[Step]) -> list[Step]:
    """`then`, which ends with a return, for one call; nothing where the machine has no such call."""
    number = syscalls.number(name, machine)
    return [] if number is None else [(_EQUAL, 0, len(then), number), *then]


def _argument(place: int) -> Step:
    return (_LOAD, 0, 0, _ARGUMENT_AT + 8 * place)  # the low half: both architectures are little-endian


def _clone(alone: bool) -> list[Step]:
    steps: list[Step] = [_argument(0), (_ANY_BIT, 0, 1, _NEW_NAMESPACES), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    if alone:
        steps += [(_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _refuse(place: int, values: Sequence[int]) -> list[Step]:
    steps = [_argument(place)]
    for value in values:
        steps += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _only(place: int, values: Sequence[int]) -> list[Step]:
    steps = [_argument(place)]
    for value in values:
        steps += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*steps, (_RETURN, 0, 0, _ERRNO | _EPERM)]
