"""Files and folders that are whole or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch.distributed.checkpoint.api import CheckpointException

from delta_lightning.errors import RunError
from delta_lightning.trainer.callbacks.manifest import META, SummingFile

PARTIAL, REPLACED = ".partial", ".replaced"
CLOSED = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS)  # no space would help


def beside(target: Path) -> Path:
    """Where `whole` lets `target` be written."""
    return target.with_name(f".{target.name}{PARTIAL}")


@contextmanager
def whole(target: Path, what: str) -> Iterator[Path]:
    """A path beside `target` to write a file or a folder to; renamed to `target` when the block ends well, else removed.

    Args:
        target: where it belongs; what is there now stays until the new one is complete.
        what: for the message, for example "the checkpoint".

    Raises:
        RunError: it could not be written; names the folder, the reason and what helps.
    """
    partial = beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        yield partial
        _put(partial, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            _remove(partial)
        told = unwritten(error, target, what)
        if told is None:
            raise
        raise told from error


def unwritten(error: BaseException, target: Path, what: str) -> RunError | None:
    """What to say of an error that kept `target` from being written; None if the error is about something else."""
    reason = _storage_reason(error)
    if reason is None:
        return None
    cause = error if isinstance(error, OSError) else error.__context__
    closed = isinstance(cause, OSError) and cause.errno in CLOSED
    room, remedy = ("", "Make the folder writable") if closed else (f"; {_free(target.parent)} free there", "Free some space")
    return RunError(
        f"{what} could not be written to {target.parent}: {reason}{room}. "
        f"What was there before is untouched. {remedy}, or choose another folder."
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint file with its checksum, streamed to the folder it belongs to and renamed when complete.

    Lightning's own holds the whole file in memory, writes it to the system's temporary folder, and copies it from there when
    that is another file system, which a full disk or a kill cuts off half-way.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`. Raises `RunError` if it cannot be written; what was there before stays then."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with whole(Path(path), "the checkpoint") as partial, partial.open("wb") as file:
            summing = SummingFile(file)
            torch.save(checkpoint, cast(IO[bytes], summing))
            summing.seal()
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read `path` into main memory."""
        # Lightning's default is a function, with which torch does not read tensors that wrap others (moments in 8 bits).
        with still_there(Path(path)):
            return super().load_checkpoint(path, map_location, weights_only)


@contextmanager
def still_there(checkpoint: Path) -> Iterator[None]:
    """Says so where the checkpoint that is read within was removed meanwhile. Raises `RunError`."""
    try:
        yield
    except (OSError, ValueError, CheckpointException) as error:
        if checkpoint.is_file() or (checkpoint / META).is_file():
            raise
        raise RunError(
            f"the checkpoint {checkpoint} was there when the run began and is gone: another process has removed it. "
            "Resume from one that is there, or with --ckpt_path=last."
        ) from error


def _put(partial: Path, target: Path) -> None:
    """Rename. A folder cannot be replaced in one call: the old one steps aside for a moment, and is removed last."""
    old = target.with_name(f".{target.name}{REPLACED}")
    _remove(old)
    if target.is_dir():
        target.replace(old)
    partial.replace(target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _storage_reason(error: BaseException) -> str | None:
    """Why writing failed; None if the error is about something else. Writers in C++ hide the `OSError` that they met."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RuntimeError) and ("PytorchStreamWriter" in str(error) or "unexpected pos" in str(error)):
        hidden = error.__context__
        return (isinstance(hidden, OSError) and hidden.strerror) or "the file could not be written to its end"
    if type(error).__name__ == "SafetensorError":
        return str(error)
    return None


def _free(folder: Path) -> str:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return f"{shutil.disk_usage(there).free / 2**20:,.0f} MiB"
