"""Which checkpoint `--ckpt_path` means, and whether it is whole: answered on rank 0, before anything heavy loads."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from delta_lightning.cli.failures import RANKS
from delta_lightning.cli.run_folder import NOW
from delta_lightning.errors import ConfigError, require
from delta_lightning.trainer.callbacks.manifest import META, Tick, damage, read_seal
from delta_lightning.trainer.progress import Progress

LAST, LAST_IF_ANY = "last", "last-if-any"
WORDS = (LAST, LAST_IF_ANY)
VARIABLE = "DELTA_CKPT_PATH"  # carries rank 0's answer to the ranks that Lightning starts
QUIET_SECONDS = 2.0

Say = Callable[[str], None]


def resolve(
    asked: str | None,
    *,
    template: str,
    folder: Path,
    environment: MutableMapping[str, str],
    rank: int,
    nodes: int = 1,
    say: Say,
) -> str | None:
    """The checkpoint to go on from, whole; None to begin anew.

    Args:
        asked: the setting `ckpt_path`: a path, `last`, `last-if-any`, or None.
        template: the setting `run_dir`. folder: of the run's checkpoints.
        environment: of the process; the answer is put there for the ranks that Lightning starts, which read it.
        rank: of this process. Other ranks than 0 that were launched beside it get their answer from `agreed`.
        nodes: of the run. say: shows people a line.

    Raises:
        ConfigError: there is none, it is damaged, `last` without the folder of one run, or on several nodes with no launcher,
            each of which would look for itself.
    """
    if told(environment):
        return environment[VARIABLE] or None
    environment.pop(VARIABLE, None)  # of an earlier run of this process
    require(
        asked not in WORDS or nodes == 1 or any(name in environment for name in RANKS), f"--ckpt_path={asked}",
        wanted="a launcher that starts every rank, since each node would look for itself", got=f"{nodes} nodes and none",
        remedy="Start the run with torchrun or srun, or give the checkpoint's path.",
    )  # fmt: skip
    if asked is None or rank:
        return asked
    answer = _last(asked, template, folder, rank, say) if asked in WORDS else asked
    if answer is not None and asked not in WORDS and _seems_one(Path(answer)):
        refuse_damage(Path(answer), rank, say)
    environment[VARIABLE] = answer or ""
    return answer


def told(environment: Mapping[str, str]) -> bool:
    """Whether Lightning started this rank, and the one that had it do so has left its answer."""
    return "LOCAL_RANK" in environment and VARIABLE in environment


def agreed(trainer: Trainer, module: LightningModule, path: str | None) -> str | None:
    """Rank 0's answer, on every rank, where ranks were launched together by something else than Lightning. Collective."""
    around = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size == 1 or around is None or not around.creates_processes_externally:
        return path
    trainer.strategy.connect(module)
    trainer.strategy.setup_environment()  # the process group; Lightning would begin with the same calls
    answer: str | None = trainer.strategy.broadcast(path)
    return answer


def newest_whole(folder: Path, tick: Tick = lambda done, total: None, say: Say = lambda line: None) -> Path | None:
    """The checkpoint of the folder that was made last, damaged ones left out; None if there is none."""
    if not folder.is_dir():
        return None
    for checkpoint in sorted(folder.glob("[!.]*.ckpt"), key=_made, reverse=True):
        wrong = damage(checkpoint, tick)
        if wrong is None:
            return checkpoint
        say(f"{checkpoint} is damaged and left out: {wrong}")
    return None


def ticker(rank: int, what: str = "checking the checkpoint, MiB", shift: int = 20) -> Tick:
    """Shows how far something is, in units of 2^shift, once it takes longer than two seconds."""
    progress, begun = Progress.for_rank(rank), time.monotonic()

    def tick(done: int, total: int) -> None:
        if time.monotonic() - begun > QUIET_SECONDS:
            progress(what, done >> shift, total >> shift)

    return tick


def _last(asked: str, template: str, folder: Path, rank: int, say: Say) -> str | None:
    require(
        NOW not in template, f"--ckpt_path={asked}", wanted="the folder of one run, --run_dir=FOLDER", got=template,
        remedy="Name the run's folder; {now} is another one each time.",
    )  # fmt: skip
    found = newest_whole(folder, ticker(rank), say)
    if found is not None:
        say(f"going on from {found}")
        _say_unsealed(found, say)
        return str(found)
    there = sorted(path.name for path in folder.glob("[!.]*.ckpt")) if folder.is_dir() else []
    if asked == LAST_IF_ANY and not there:
        say(f"no checkpoint in {folder}: a new run begins")
        return None
    raise ConfigError(
        f"--ckpt_path={asked}", wanted=f"a whole checkpoint in {folder}",
        got=f"only damaged ones: {', '.join(there)}" if there else "none",
        remedy="Begin a new run in another --run_dir." if there else "Leave it out to begin, or use last-if-any, which begins "
        "anew where there is none. For a run whose folder was moved, give --run_dir=FOLDER too.",
    )  # fmt: skip


def refuse_damage(checkpoint: Path, rank: int, say: Say) -> None:
    """Reads all of a checkpoint. Raises `ConfigError` where it is damaged, with the newest whole one beside it."""
    wrong = damage(checkpoint, ticker(rank))
    if wrong is not None:
        other = newest_whole(checkpoint.parent)
        raise ConfigError(
            f"--ckpt_path={checkpoint}", wanted="a whole checkpoint", got=f"a damaged one: {wrong}",
            remedy=f"The newest whole one there: --ckpt_path={other}." if other else "There is no whole one beside it.",
        )  # fmt: skip
    _say_unsealed(checkpoint, say)


def _say_unsealed(checkpoint: Path, say: Say) -> None:
    if read_seal(checkpoint) is None:
        say(f"{checkpoint} has no checksum, it was made by an earlier version: read as it is")


def _seems_one(path: Path) -> bool:
    """Whether it is there, and no folder of something else, such as the run's."""
    return path.is_file() or (path.is_dir() and (path.suffix == ".ckpt" or (path / META).is_file()))


def _made(checkpoint: Path) -> tuple[int, list[int]]:
    """When it was made; of two at the same time the one that is further."""
    seal = read_seal(checkpoint)
    position: list[Any] = [int(number) for number in re.findall(r"\d+", checkpoint.stem)]
    try:
        return (checkpoint.stat().st_mtime_ns if seal is None else seal.time_ns), position
    except FileNotFoundError:  # removed since the folder was listed, by a run that goes on
        return 0, position
