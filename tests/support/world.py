"""Runs a function on several gloo ranks, each a process of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """`function(*args)` on each of `size` ranks; its results in rank order. A rank that raises fails the caller."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, args=(size, folder, function, args), nprocs=size)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(size)]


def _rank(rank: int, size: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    # Says to Lightning that ranks are launched from outside. Without it a trainer with several devices would launch the other
    # ranks itself: by running this process's command line again, which is the whole test suite.
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    torch.save(function(*args), Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()
