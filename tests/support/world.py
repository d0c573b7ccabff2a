"""Runs a function on several gloo ranks, each a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# What every rank imports, and what takes longest: imported once, by the server that all ranks are forked from.
PRELOAD = [
    "torch",
    "lightning.pytorch",
    "transformers.models.olmo3.modeling_olmo3",
    "transformers.models.qwen3.modeling_qwen3",
    "delta_lightning.trainer.module",
]


def run_ranks(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """`function(*args)` on each of `size` ranks; its results in rank order. A rank that raises fails the caller.

    Ranks have this process's environment and modules of their own, without its threads and state. None outlives the call,
    whatever ends it, a test's time limit too.
    """
    multiprocessing.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as folder:
        given = (size, folder, dict(os.environ), function, args)
        ranks = mp.start_processes(_rank, args=given, nprocs=size, join=False, start_method="forkserver")
        try:
            while not ranks.join():
                pass
        finally:
            for process in ranks.processes:
                process.kill()  # those that ended are let be
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(size)]


def _rank(
    rank: int, size: int, folder: str, environment: Mapping[str, str], function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.clear()  # the server's, from when it was started
    os.environ.update(environment)
    torch.set_num_threads(1)
    # Says to Lightning that ranks are launched from outside. Without it a trainer with several devices would launch the other
    # ranks itself: by running this process's command line again, which is the whole test suite.
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    torch.save(function(*args), Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
