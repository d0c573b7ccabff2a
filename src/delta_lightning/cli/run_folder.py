"""The one folder that a run writes to."""

from __future__ import annotations

import csv
import errno
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import IO, Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from delta_lightning.errors import ConfigError, require

NOW = "{now}"
VARIABLE = "DELTA_RUN_DIR"  # carries the folder to the ranks that Lightning starts
CONFIG, METRICS, ENVIRONMENT, LOCK = "config.yaml", "metrics.csv", "environment.jsonl", ".lock"
MADE = ("[!.]*/[!.]*.ckpt", "[!.]*/*.safetensors")  # what a run leaves that has got somewhere, whatever its folders are called
LAUNCHED = ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "NODE_RANK")


def resolve(template: str, environment: MutableMapping[str, str]) -> Path:
    """The run folder, the same on every rank.

    Args:
        template: the setting `run_dir`; `{now}` becomes the date and time, YYYYmmdd-HHMMSS.
        environment: of the process; the folder is put there for the ranks that Lightning starts, which read it.

    Raises:
        ConfigError: an empty name, or `{now}` where each rank would read its own clock.
    """
    if "LOCAL_RANK" in environment and VARIABLE in environment:
        return Path(environment[VARIABLE])
    require(bool(template.strip()), "run_dir", wanted="a folder", got=template, remedy="Leave it out for runs/{now}.")
    together = any(name in environment for name in LAUNCHED) or int(environment.get("SLURM_NTASKS") or 1) > 1
    require(
        not (together and NOW in template), "run_dir",
        wanted="a name without {now}, since processes launched together would each read their own clock",
        got=template, remedy="Give a name, for example --run_dir=runs/my-run.",
    )  # fmt: skip
    folder = Path(template.replace(NOW, time.strftime("%Y%m%d-%H%M%S"))).absolute()
    environment[VARIABLE] = str(folder)
    return folder


def check(folder: Path, *, ckpt_path: str | None, anew: bool = False) -> None:
    """Refuses a folder that holds another run or cannot be written to; creates nothing. Raises `ConfigError`.

    With `anew` it may hold a run that ended before its first checkpoint.
    """
    free = not folder.exists() or folder.is_dir()
    require(free, "run_dir", wanted="a folder", got=str(folder), remedy="A file has that name: choose another --run_dir.")
    made = sorted(path for kind in MADE for path in folder.glob(kind)) if anew and ckpt_path is None else []
    require(
        not made, "run_dir", wanted="a folder in which no run has got as far as a checkpoint, to begin one",
        got=f"{made[0].relative_to(folder)} there" if made else "",
        remedy="Give that run's checkpoint, --ckpt_path=PATH, or choose another --run_dir.",
    )  # fmt: skip
    resumes = ckpt_path is not None and folder.resolve() in Path(ckpt_path).resolve().parents
    require(
        resumes or (anew and ckpt_path is None) or not (folder / CONFIG).exists(), "run_dir", wanted="a folder without a run",
        got=f"{folder}, which holds one ({CONFIG})",
        remedy="Choose another --run_dir, or resume that run with --ckpt_path=last.",
    )  # fmt: skip
    check_writable(folder, "run_dir")


def check_writable(folder: Path, setting: str) -> None:
    """Refuses a folder that cannot be written to or made; creates nothing. Raises `ConfigError`.

    Args:
        setting: that names it, as the user writes it.
    """
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(
            setting, wanted="a folder that can be written to", got=f"{folder} ({there}: {error.strerror})",
            remedy=f"Choose another --{setting.lstrip('-')}, or make {there} writable.",
        ) from error  # fmt: skip


def claim(folder: Path) -> IO[str]:
    """Makes the folder this process's alone, on rank 0, until the file that is given is closed or the process ends.

    A record lock (POSIX): the system lets go of it with the process, however that ends, and child processes do not hold it.
    Where a file system has no locks, nothing is held.

    Raises:
        ConfigError: another process writes to it, on this machine or another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise ConfigError(
                "run_dir", wanted="a folder that no other run is writing to", got=f"{folder}, in use by {holder}",
                remedy="Wait until that run has ended, or choose another --run_dir.",
            ) from error  # fmt: skip
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def loggers(folder: Path) -> list[Logger]:
    """`metrics.csv` and TensorBoard events, directly in the run folder."""
    return [
        CSVLogger(save_dir=folder, name="", version="", flush_logs_every_n_steps=1),
        TensorBoardLogger(save_dir=folder, name="tensorboard", version=""),
    ]


def keep_metrics(folder: Path, logger: Logger | None, *, before_step: int) -> None:
    """On a resume, hand the rows of `metrics.csv` up to the checkpoint back to the logger, which would start an empty file.

    On rank 0. The old file steps aside until they are written again: a kill or a full disk in between loses none. A last line
    that was cut off is left out: it was being written when the run ended, after the checkpoint.
    """
    path, aside = folder / METRICS, folder / f".{METRICS}.before"
    if not isinstance(logger, CSVLogger):
        return
    if path.is_file() and not aside.is_file():
        path.replace(aside)
    if not aside.is_file():
        return
    with aside.open(newline="", encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
    for row in csv.DictReader(lines):
        if int(row["step"]) < before_step or _before_training(row):
            values: dict[str, Any] = {name: value for name, value in row.items() if name != "step" and value != ""}
            logger.log_metrics(values, int(row["step"]))
    logger.save()
    aside.unlink()


def _before_training(row: dict[str, Any]) -> bool:
    """Whether it is the evaluation that a run begins with, which a resumed one leaves out."""
    return int(row["step"]) == 0 and not row.get("update/loss")
