"""What one job may use."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.errors import require


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one job may use before the kernel stops it. Wall-clock time is the caller's: `Cell.wait` and `Cell.kill`.

    Args:
        memory_mib: memory in MiB, 16 or more, of all its processes together; each one's address space is limited too.
        cpu_seconds: processor time in seconds of each process, 1 or more; SIGKILL past it.
        processes: processes and threads at once, 1 or more.
        disk_mib: size in MiB of its private /tmp (and, again, of its /dev/shm) and of any one file, 1 or more.
        open_files: open file descriptors of each process, 16 or more.

    Raises:
        ConfigError: a limit below its least value.
    """

    memory_mib: int = 512
    cpu_seconds: int = 10
    processes: int = 32
    disk_mib: int = 16
    open_files: int = 64

    def __post_init__(self) -> None:
        least = {"memory_mib": 16, "cpu_seconds": 1, "processes": 1, "disk_mib": 1, "open_files": 16}
        for name, value in least.items():
            got = getattr(self, name)
            require(
                isinstance(got, int) and got >= value,
                f"limits.{name}",
                wanted=f"a whole number of at least {value}",
                got=got,
                remedy=f"Raise it to {value} or more.",
            )
