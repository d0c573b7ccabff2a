"""A plan of `fsdp2` beside what two ranks take, metered; and the bytes of gradients before and after their sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from delta_lightning.models.lora import LoRA
from delta_lightning.planning.dry import DryModel, Pass
from delta_lightning.planning.machine import Machine
from delta_lightning.planning.sums import Sums
from support.planned import Case, Sized, measured, over
from support.sharded import cut
from support.world import run_ranks

DEEP = Sized(hidden_size=256, layers=5, intermediate_size=512, vocabulary=3000, context=512)
WIDE = Sized(hidden_size=128, layers=3, intermediate_size=384, vocabulary=9000, context=512, tie_embeddings=False)
SHORT: dict[str, Any] = {"ranks": 2, "prompts": 2, "prompt_tokens": 8, "completion_tokens": 16}
WITHIN = 0.15
LONE = 1.3  # of an update of one micro-batch: its shards count as if they were there from the beginning


def on_a_rank(cases: list[tuple[Case, torch.dtype]]) -> list[dict[str, int]]:
    return [
        measured(case, lambda load, dtype=dtype: cut(load, compute_dtype=dtype, reduce_dtype=torch.float32))
        for case, dtype in cases
    ]


def check(cases: list[tuple[Case, torch.dtype]]) -> None:
    for rank in run_ranks(2, on_a_rank, cases):
        for (case, dtype), seen in zip(cases, rank, strict=True):
            found = over(seen, case.planned(Machine(ranks=2, sharded=True, compute_bytes=dtype.itemsize)))
            assert set(found) == {"scoring", "credit", "update", "optimiser step", "stays"}
            most = LONE if case.micro == 1 else 1 + WITHIN
            bounds = {name: (1 - WITHIN, most if name == "update" else 1 + WITHIN) for name in found}
            assert all(bounds[name][0] <= ratio <= bounds[name][1] for name, ratio in found.items()), (case, dtype, found)


@pytest.mark.timeout(300)
def test_two_ranks() -> None:
    check([(Case(backbone=DEEP, **SHORT), torch.float32), (Case(backbone=WIDE, **SHORT), torch.bfloat16)])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_in_full() -> None:
    long = SHORT | {"completion_tokens": 60, "prompts": 4}
    check(
        [
            (Case(backbone=DEEP, **SHORT), torch.bfloat16),
            (Case(backbone=WIDE, **SHORT), torch.float32),
            (Case(backbone=DEEP, micro=1, **SHORT), torch.float32),
            (Case(backbone=WIDE, recompute=True, **long), torch.float32),
            (Case(backbone=DEEP, adapter=LoRA(rank=8), **SHORT), torch.float32),
        ]
    )


def backward(sums: Sums | None) -> int:
    """A model that is nearly all embedding."""
    meta = Sized(hidden_size=64, layers=2, intermediate_size=64, vocabulary=20_000, heads=4, kv_heads=2).meta()
    dry = DryModel(meta, dtype=torch.bfloat16, activation_checkpointing=False, head_budget_bytes=1 << 20, sums=sums)
    return dry.update(Pass(rows=1, columns=8, trained=4), accumulating=False).backward


def test_at_the_end_the_gradients_of_embedding_and_head_are_there_in_two_dtypes() -> None:
    root = 20_000 * 64
    assert backward(Sums(ranks=16, itemsize=8)) == pytest.approx(root * (2 + 8), rel=0.05)
    assert backward(Sums(ranks=2, itemsize=8)) == pytest.approx(root * (8 + 8 / 2), rel=0.05)  # the result, beside its input
