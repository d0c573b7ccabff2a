"""Whole runs of the command line in processes of their own that get a signal somewhere, and what they end with."""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from support.world import PRELOAD

MARK, KILL, LIMIT = "DRILL_MARK", "DRILL_KILL", "DRILL_LIMIT"
RUN = (
    "fit", "--model.backbone=Tiny", "--model.backbone.hidden_size=16", "--model.backbone.layers=2", "--model.backbone.heads=2",
    "--model.backbone.kv_heads=1", "--model.backbone.intermediate_size=32",
    "--data.source=Arithmetic", "--data.source.num_train=20", "--data.source.num_held_out=4",
    "--model.verifier=support.odd.OddSum", "--model.verdicts.workers=1", "--model.optimizer.lr=1e-3",
    "--model.scheduler=torch.optim.lr_scheduler.LinearLR", "--model.scheduler.start_factor=0.5",
    "--model.scheduler.total_iters=5", "--model.filters+=ZeroVariance", "--model.refill_rounds=1",
    "--model.prompts_per_step=8", "--model.completions_per_prompt=4", "--model.updates_per_step=2", "--model.micro_batches=2",
    "--model.sampling.max_new_tokens=8", "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2",
    "--trainer.accelerator=cpu", "--report.curves=false", "--trainer.callbacks+=support.kill_drill.KillAt",
    "--ckpt_path=last-if-any",
)  # fmt: skip
PHASES = ("sampling", "verifying", "scoring", "updating", "write", "rename", "remove", "export")


class KillAt(pl.Callback):
    """Sends this process a signal at the place that the environment names, then holds it up for some seconds.

    "phase:count:rank:signal:seconds": the count from 1, the signal SIGKILL and no seconds by default. Any phase of a held-out
    evaluation is also "evaluating".
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        phase, count, rank, name, seconds = [*os.environ[KILL].split(":"), *["", "", "", "", ""]][:5]
        if not phase or trainer.global_rank != int(rank):
            return
        left = int(count)

        def passed(place: str) -> None:
            nonlocal left
            if place == phase:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.Signals[name or "SIGKILL"])
                    time.sleep(float(seconds or 0))

        module: Any = pl_module
        show = module.progress.show
        module.progress.show = lambda at, *args, **more: (
            passed(at), trainer.validating and passed("evaluating"), show(at, *args, **more),
        )  # fmt: skip
        sys.addaudithook(lambda event, args: passed(_place(event, args)))


def _place(event: str, args: Sequence[Any]) -> str:
    """What writing to the run folder is about to happen."""
    if event not in ("open", "os.rename", "os.remove", "shutil.rmtree") or not isinstance(args[0], (str, os.PathLike)):
        return ""
    path = Path(args[0])
    if event == "open":
        inside = ".ckpt.partial" in str(path) and isinstance(args[1], str) and "w" in args[1]
        return "write" if inside else ""
    if event == "os.rename":
        return "export" if path.name == ".export.partial" else "rename" if path.name.endswith(".ckpt.partial") else ""
    return "remove" if path.name.startswith("step-") and path.suffix == ".ckpt" else ""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Exit codes of the ranks (-9: killed) and what they printed."""

    codes: list[int]
    printed: str


def run(folder: Path, *more: str, ranks: int = 1, kill: str = "", after: float | None = None, **variables: str) -> Ended:
    """One start of the run in `folder / "run"`. When a signal ends a rank, or after so many seconds, all groups are killed."""
    multiprocessing.set_forkserver_preload([*PRELOAD, "delta_lightning.cli.app", "support.kill_drill"])
    context = multiprocessing.get_context("forkserver")
    folder.mkdir(parents=True, exist_ok=True)
    log, port = folder / "printed.txt", _free_port()
    args = [*RUN, f"--run_dir={folder / 'run'}", *more]
    given = [(_environment(folder, rank, ranks, port, kill) | variables, args, str(log)) for rank in range(ranks)]
    processes = [context.Process(target=_rank, args=each) for each in given]
    log.write_text("")
    for process in processes:
        process.start()
    end = time.monotonic() + (240.0 if after is None else after)
    try:
        while any(process.is_alive() for process in processes) and time.monotonic() < end:
            time.sleep(0.02)
            if any(process.exitcode is not None and process.exitcode < 0 for process in processes):
                break
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
    return Ended(codes=[process.exitcode or 0 for process in processes], printed=log.read_text())


def left_running(folder: Path, patience: float = 10.0) -> list[str]:
    """Command lines of processes of that drill that are still there after a while."""
    end = time.monotonic() + patience
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={folder}\0".encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


def result(folder: Path) -> dict[str, Any]:
    """All that a run leaves and that a resume could spoil: its last checkpoint, metrics without seconds, the export."""
    [checkpoint] = (folder / "run" / "checkpoints").iterdir()
    state = _read(checkpoint)
    report = next(value for name, value in state["callbacks"].items() if name.startswith("RunReport"))
    for name in ("delta_lightning_config", "callbacks"):  # names folders and classes; seconds are compared without
        state.pop(name)
    state["loops"].pop("validate_loop")  # counts evaluations of this process, before and after training
    export = {file.name: file.read_bytes() for file in (folder / "run" / "export").iterdir()}
    return {
        "checkpoint": checkpoint.name, "state": state, "report": _timeless(report), "metrics": metrics(folder / "run"),
        "export": export,
    }  # fmt: skip


def metrics(run_folder: Path) -> list[dict[str, str]]:
    """Rows of `metrics.csv` without seconds."""
    with (run_folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def differences(got: Any, want: Any, at: str = "") -> list[str]:
    """Places in which two results differ, bit for bit."""
    if isinstance(want, torch.Tensor):
        return [] if isinstance(got, torch.Tensor) and got.dtype == want.dtype and torch.equal(got, want) else [at]
    if isinstance(want, Mapping) and isinstance(got, Mapping):
        return [each for key in {**want, **got} for each in differences(got.get(key), want.get(key), f"{at}.{key}")]
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)) and len(got) == len(want):
        return [each for i, pair in enumerate(zip(got, want, strict=True)) for each in differences(*pair, f"{at}[{i}]")]
    return [] if got == want or (got != got and want != want) else [f"{at}: {str(got)[:60]} instead of {str(want)[:60]}"]


def drawn(seed: int, count: int, *, ranks: int) -> list[str]:
    """Random places to kill at, over all phases."""
    draws = random.Random(seed)
    most = {"sampling": 30, "verifying": 8, "scoring": 6, "updating": 12, "write": 3, "rename": 3, "remove": 2, "export": 1}
    phases = [PHASES[i % len(PHASES)] for i in range(count)]
    by_rank_0 = ("write", "rename", "remove", "export")  # under ddp; a sharded part that rank 1 writes has a test of its own
    places = [(phase, draws.randint(1, most[phase]), draws.randrange(ranks)) for phase in phases]
    return [f"{phase}:{count}:{0 if phase in by_rank_0 else rank}" for phase, count, rank in places]


def _read(checkpoint: Path) -> dict[str, Any]:
    if checkpoint.is_file():
        return dict(torch.load(checkpoint, weights_only=True))
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    whole = checkpoint.with_name("whole.pt")
    dcp_to_torch_save(checkpoint, whole)
    state = torch.load(whole, weights_only=True) | torch.load(checkpoint / "meta.pt", weights_only=True)
    whole.unlink()
    return dict(state)


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _timeless(one) for name, one in value.items() if "seconds" not in str(name)}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _environment(folder: Path, rank: int, ranks: int, port: int, kill: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DELTA_RUN", "DELTA_CKPT", "SLURM"))}
    kept |= {MARK: str(folder), KILL: kill, "OMP_NUM_THREADS": "1"}
    if ranks > 1:  # as torchrun sets them
        kept |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
            "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "drill",
        }  # fmt: skip
    return kept


def _rank(environment: Mapping[str, str], args: Sequence[str], log: str) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.argv = ["delta-lightning"]
    torch.set_num_threads(1)
    if LIMIT in environment:  # bytes of a file, past which writing fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(environment[LIMIT]), int(environment[LIMIT])))
    from delta_lightning.__main__ import main

    sys.exit(main(list(args)))


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])
