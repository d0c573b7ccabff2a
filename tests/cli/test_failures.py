"""Errors of storage and of other ranks, whoever wrapped them."""

from __future__ import annotations

import errno
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from delta_lightning.cli.failures import exit_code, hush_writers, lost_rank_message, rank, storage_message, told
from delta_lightning.errors import ConfigError, RunError
from support.world import run_ranks

FULL = OSError(errno.ENOSPC, "No space left on device")


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except (OSError, RuntimeError) as inner:
            raise ValueError("you tried to log 0.0 which is currently not supported") from inner
    except ValueError as outer:
        return outer


def test_a_full_disk_is_found_under_what_wrapped_it(tmp_path: Path) -> None:
    message = storage_message(wrapped(FULL), tmp_path / "run" / "deep")
    assert message is not None
    assert (
        message.startswith(f"could not write {tmp_path / 'run' / 'deep'}: the disk is full. ") and "MiB free there" in message
    )


@pytest.mark.parametrize(("number", "reason"), [(errno.EROFS, "read-only"), (errno.EACCES, "denied"), (errno.EDQUOT, "quota")])
def test_the_reason_and_the_file_are_named(number: int, reason: str, tmp_path: Path) -> None:
    message = storage_message(OSError(number, os.strerror(number), str(tmp_path / "f")), Path("elsewhere"))
    assert message is not None and reason in message and str(tmp_path / "f") in message and "elsewhere" not in message


@pytest.mark.parametrize("there", [True, False])
def test_what_may_not_be_read_is_refused_as_that_and_what_may_not_be_written_as_before(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    if there:
        file.write_text("of somebody else")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).exists() and (mode == os.F_OK or Path(path) != file))
    code = told(wrapped(PermissionError(errno.EACCES, "denied", str(file))), tmp_path)
    said = capsys.readouterr().err
    assert code == (2 if there else 1)
    assert (f"{file}: wanted a file or folder that can be read, got permission was denied" in said) == there
    assert ("could not write" in said) == (not there)


def test_other_errors_are_not_about_storage() -> None:
    assert storage_message(FileNotFoundError(errno.ENOENT, "gone"), Path()) is None
    assert storage_message(ValueError("x"), Path()) is None


def left_alone() -> str | None:
    """What rank 0 says whose fellow has ended, and None of rank 1, which has."""
    if dist.get_rank() == 0:
        try:
            dist.all_reduce(torch.zeros(1), group=dist.new_group(timeout=timedelta(seconds=3)))
        except RuntimeError as error:
            return lost_rank_message(error)
        return "nothing was raised"
    dist.new_group()
    return None


def test_a_lost_rank_is_named() -> None:
    said = run_ranks(2, left_alone)[0]
    assert said is not None and said.startswith("another rank has ended or does not answer; if it could, it has said why ([")
    nccl = dist.DistBackendError("NCCL error in: x.cpp, remote process exited\nLast error: y")
    assert lost_rank_message(wrapped(nccl)) == (
        "another rank has ended or does not answer; if it could, it has said why (NCCL error in: x.cpp, remote process exited)"
    )
    assert lost_rank_message(RuntimeError("shapes differ")) is None


def test_exit_codes() -> None:
    assert exit_code(ConfigError("a", wanted="b", got="c", remedy="d")) == 2
    assert exit_code(RunError("x")) == exit_code(FULL) == 1


def test_rank_is_read_from_what_launchers_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert rank() == 0
    monkeypatch.setenv("NODE_RANK", "1")
    assert rank() > 0
    monkeypatch.setenv("LOCAL_RANK", "0")  # as Lightning sets it there
    assert rank() > 0
    monkeypatch.setenv("NODE_RANK", "0")
    assert rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rank() == 1
    monkeypatch.setenv("RANK", "5")
    assert rank() == 5


def test_only_storage_errors_of_threads_are_hushed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
    hush_writers()

    def fails(error: Exception) -> None:
        raise error

    bug = RuntimeError("bug")
    for error in (FULL, bug):
        thread = threading.Thread(target=fails, args=(error,))
        thread.start()
        thread.join()
    assert seen == [bug]
