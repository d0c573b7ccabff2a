"""Which tensors hold what is no number, on any rank."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.spoiled import spoiled
from support.world import run_ranks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_names_in_order(dtype: torch.dtype) -> None:
    named = {name: torch.ones(2, 3, dtype=dtype) for name in ("c", "a", "b", "largest")}
    assert spoiled(named.items(), Ranks()) == []
    named["b"][1, 2], named["c"][0, 0] = float("nan"), -float("inf")
    named["largest"][0, 0] = torch.finfo(dtype).max / 2  # its square is none
    assert spoiled(named.items(), Ranks()) == ["c", "b"]


def test_nothing_to_look_at() -> None:
    assert spoiled([], Ranks()) == [] and spoiled([("empty", torch.zeros(0))], Ranks()) == []


def shards() -> list[str]:
    mesh = init_device_mesh("cpu", (2,))
    whole = torch.ones(3, 2)
    whole[2, 1] = float("nan")  # in the share of rank 1
    rows = distribute_tensor(whole, mesh, [Shard(0)])
    short = distribute_tensor(torch.ones(1), mesh, [Shard(0)])  # rank 1 owns nothing of it
    return spoiled([("short", short), ("rows", rows)], Ranks.current())


def test_every_rank_knows_of_a_shard() -> None:
    assert run_ranks(2, shards) == [["rows"], ["rows"]]
