"""The sentences that several rungs share in what they guarantee."""

from __future__ import annotations

NAMESPACES = (
    "files: only /usr, the interpreter and the named folders, all read-only; a /tmp and /dev/shm of its own, in memory",
    "no network, not even to this machine; no System V or POSIX message queues, semaphores and shared memory of others",
    "no other process to be seen or signalled; nothing outlives its cell: the pid namespace ends with it",
)
SYSTEM_CALLS = (
    "no capabilities, no new privileges, a system call filter (sockets, tracing, mounts, namespaces, bpf, io_uring, keys, ...)",
)


def memory_line(group: bool) -> str:
    """How memory is limited."""
    if group:
        return "memory: all processes of a cell together, by a control group; and address space per process"
    return "memory: address space per process; the zygote watches all of a cell together and ends it past the limit"


def processes_line(group: bool) -> str:
    """How processes are limited."""
    return "processes: a pids control group and RLIMIT_NPROC" if group else "processes: RLIMIT_NPROC"
