"""From a fork of the zygote to a cell: everything that is given up before the first line of untrusted code runs.

The plan is the rung's, made outside (`delta_lightning.sandbox.rung.Plan`); see there for what each key means.
"""

from __future__ import annotations

import fcntl
import os
import resource
from typing import Any

from delta_lightning.sandbox.inside import kernel

FIRST = 3  # number of the first channel in the cell


def enter(plan: dict[str, Any], order: dict[str, Any], doors: list[int]) -> None:
    """Turn this freshly forked process into a cell.

    Args:
        plan: the rung's plan.
        order: what to start: `lane`, `limits` and `other_processes` (of the same uid, which the kernel counts too).
        doors: open `cgroup.procs` files of the lane.
    """
    limits = order["limits"]
    for door in doors:
        os.write(door, b"0")
    os.setsid()
    _last_choice_first()
    if plan["namespaces"]:
        _own_file_system(limits["disk_mib"], plan["keep"])
    _limit(plan, order)
    os.umask(0o077)
    _own_identity(plan, order["lane"])


def lock(plan: dict[str, Any]) -> None:
    """The last step, right before the job: no new privileges, Landlock's walls, the system call filter."""
    if plan["seccomp"] is None:
        return
    kernel.no_new_privileges()
    if plan["walls"]:
        kernel.landlock_walls()
    program: bytes = plan["filter"]
    if plan["marker"]:
        program = program.replace(plan["marker"].to_bytes(4, "little"), os.getpid().to_bytes(4, "little"))
    kernel.install_filter(program)


def _last_choice_first() -> None:
    """When memory runs out, this process goes first, not the zygote and not the trainer.

    By plain descriptors, as all that runs between fork and job: a text file touches many pages that are still the zygote's.
    """
    try:
        file = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # no /proc here: the memory limits still hold, and the kernel prefers large processes by itself
    os.write(file, b"1000")
    os.close(file)


def _own_file_system(disk_mib: int, keep: list[str]) -> None:
    kernel.unshare(kernel.NEWNS)
    kept = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in keep]
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    for folder in ("/tmp", "/dev/shm"):
        kernel.mount("tmpfs", folder, "tmpfs", flags, f"size={disk_mib}m,nr_inodes={256 * disk_mib},mode=1777")
    for path, descriptor in kept:
        _show_again(path, f"/proc/self/fd/{descriptor}")
    try:
        kernel.mount("proc", "/proc", "proc", flags | kernel.MS_RDONLY, "subset=pid,hidepid=2")
    except OSError:  # before Linux 5.8: all of it, but read-only
        kernel.mount("proc", "/proc", "proc", flags | kernel.MS_RDONLY)
    os.chdir("/tmp")


def _show_again(path: str, source: str) -> None:
    """What lay below a folder that is now the cell's own; read-only as it was."""
    if os.path.isdir(source):
        os.makedirs(path, 0o755)
    else:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        with open(path, "w"):
            pass
    kernel.mount(source, path, None, kernel.MS_BIND | kernel.MS_REC)


def _limit(plan: dict[str, Any], order: dict[str, Any]) -> None:
    limits = order["limits"]
    mib = 1 << 20
    bounds = {
        resource.RLIMIT_AS: limits["memory_mib"] * mib + plan["interpreter_bytes"],
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["disk_mib"] * mib if plan["namespaces"] or plan["seccomp"] is None else 0,
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if plan["count_processes"]:
        bounds[resource.RLIMIT_NPROC] = limits["processes"] + order["other_processes"]
    for name, bound in bounds.items():
        hard = resource.getrlimit(name)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(name, (bound, bound))


def only(channels: list[int], keep: int) -> tuple[list[int], int]:
    """Channels become 3, 4, ...; 0, 1, 2 are /dev/null; `keep` moves out of the way; the rest is closed."""
    null = os.open("/dev/null", os.O_RDWR)
    high = FIRST + len(channels)
    moved = [fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, high + 1) for channel in channels]
    keep = fcntl.fcntl(keep, fcntl.F_DUPFD_CLOEXEC, high + 1)
    for place in range(FIRST):
        os.dup2(null, place)
    for place, channel in enumerate(moved):
        os.dup2(channel, FIRST + place, inheritable=False)
    os.dup2(keep, high, inheritable=False)
    os.closerange(high + 1, 1 << 30)
    return list(range(FIRST, high)), high


def _own_identity(plan: dict[str, Any], lane: int) -> None:
    if plan["uids"] is not None:
        uid = plan["uids"][lane]
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if plan["seccomp"] is not None:
        kernel.drop_capabilities()
    if not plan["namespaces"]:
        kernel.die_with_parent()
        if os.getppid() != plan["zygote"]:
            raise OSError("the zygote is gone")
