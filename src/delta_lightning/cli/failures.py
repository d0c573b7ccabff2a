"""What ends a run, as one message and an exit code."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from delta_lightning.errors import ConfigError, DeltaError

DEBUG = "DELTA_DEBUG"
RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # as launchers set them
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file grew past the size limit",
}
CLOSED = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission was denied",
    errno.EPERM: "permission was denied",
}


def debugging() -> bool:
    """True if the user asked for tracebacks."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def rank() -> int:
    """This process among those launched together, before Lightning has started.

    Where Lightning starts those of each of several nodes, it is at least 1 on the further nodes, and no more is known.
    """
    within = max(int(os.environ.get(name) or 0) for name in ("LOCAL_RANK", "NODE_RANK"))
    return next((int(os.environ[name]) for name in RANKS[:2] if os.environ.get(name)), within)


def show(message: str) -> None:
    """One message on stderr; ranks other than 0 say who they are."""
    sys.stderr.write(f"error{f' (rank {rank()})' if rank() else ''}: {message}\n")
    sys.stderr.flush()


def exit_code(error: BaseException) -> int:
    """2 for a config that cannot be run, 1 for a run that failed."""
    return 2 if isinstance(error, ConfigError) else 1


def delta_error(error: BaseException | None) -> DeltaError | None:
    """The error raised on purpose inside what a library wrapped around it."""
    return next((each for each in chain(error) if isinstance(each, DeltaError)), None)


def told(error: Exception, folder: Path) -> int:
    """Say an error made on purpose, a failure to read or write or a lost rank in one message; returns the exit code.

    Raises what is a bug.

    Args:
        folder: where the command writes.
    """
    known = delta_error(error) or unreadable(error)
    message = str(known) if known is not None else storage_message(error, folder) or lost_rank_message(error)
    if message is None or debugging():
        raise error
    show(message)
    return exit_code(known or error)


def unreadable(error: BaseException) -> ConfigError | None:
    """What to say of a file or folder that is there and that this user may not read; None for any other error."""
    for cause in chain(error):
        if isinstance(cause, PermissionError) and isinstance(cause.filename, (str, bytes)):
            path = Path(os.fsdecode(cause.filename))
            hidden = not os.access(path.parent, os.X_OK)
            if hidden or (os.access(path, os.F_OK) and not os.access(path, os.R_OK)):
                return ConfigError(str(path), wanted="a file or folder that can be read", got="permission was denied",
                                   remedy="Make it readable for the user of this run, or name another.")  # fmt: skip
    return None


def storage_message(error: BaseException, folder: Path) -> str | None:
    """What to say when writing failed for want of space or permission; None for any other error.

    Args:
        error: what was raised; libraries wrap the OSError that they met.
        folder: the run folder.
    """
    cause = next((each for each in chain(error) if isinstance(each, OSError) and each.errno in FULL | CLOSED), None)
    if cause is None:
        return None
    reason, full = (FULL | CLOSED)[cause.errno or 0], cause.errno in FULL
    named = cause.filename
    place = Path(os.fsdecode(named)) if isinstance(named, (str, bytes)) else folder
    free = f" {_free(place)} free there." if full else ""
    remedy = "Free some space" if full else "Make the folder writable"
    return f"could not write {place}: {reason}.{free} {remedy}, or choose another --run_dir; then resume from a checkpoint."


def lost_rank_message(error: BaseException) -> str | None:
    """What to say when ranks could not reach one another; None for any other error. Torch is not imported for its classes."""
    cause = next((each for each in chain(error) if _is_of_ranks(each)), None)
    if cause is None:
        return None
    reason = str(cause).partition(". This is typically")[0].strip().partition("\n")[0]
    return f"another rank has ended or does not answer; if it could, it has said why ({reason})"


def _is_of_ranks(error: BaseException) -> bool:
    return any(cls.__name__ == "DistError" for cls in type(error).__mro__) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )


def hush_writers() -> None:
    """Let threads that write logs fail without a traceback where the main thread will report the same."""
    usual = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or storage_message(args.exc_value, Path()) is None:
            usual(args)

    threading.excepthook = hook


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _free(path: Path) -> str:
    while not path.exists() and path != path.parent:
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**20:.1f} MiB"
