"""Five optimiser steps of a tiny model on any number of ranks, under any strategy, cut in any way: only rounding may differ.

A cell of the grid is a `Row`, one value for each factor. What it ends with is compared with the plain cell of the same model:
one device, padded rows in two micro-batches, nothing recomputed, in the same dtype, with an adapter if the cell has one.

The tolerance is derived, not fitted. A gradient is exact to `EXACT[dtype]` of its norm (the project's rule for gradients). It
is clipped to norm 1, which adds the error of the norm, and plain SGD moves the parameters by `LR` times it: after `UPDATES`
steps two runs differ by at most `UPDATES * LR * 2 * EXACT[dtype]`. A loss is a weighted mean of terms of order 1, a norm is
compared relative to itself. Nothing else has room: the sampler draws the same tokens, or the difference is of order 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.lora import LoRA
from delta_lightning.models.packed import Packed
from delta_lightning.models.padded import Padded
from delta_lightning.models.sharding import full, sharding_of
from delta_lightning.models.tiny import Tiny
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.ranks import Ranks
from support.covering import Row
from support.planted_faults import FAULTS
from support.runs import module_of
from support.world import run_ranks

UPDATES, LR = 5, 0.5
BUDGET = 40  # tokens: two rows of this run's prompts and answers, so 8, 4 and 2 micro-batches an update on 1, 2 and 4 ranks
EXACT = {"float32": 1e-5, "float64": 1e-10}
FACTORS: dict[str, tuple[str, ...]] = {
    "ranks": ("1", "2", "4"),
    "strategy": ("single", "ddp", "fsdp2"),
    "family": ("qwen3", "olmo3"),
    "head": ("tied", "untied"),
    "dtype": ("float64", "float32"),
    "activations": ("kept", "recomputed"),
    "shards": ("on device", "offloaded"),
    "trained": ("all", "lora"),
    "rows": ("padded", "packed"),
    "sums": ("each micro-batch", "each update"),
    "budget": ("no budget", "tokens_per_micro_batch"),
}
# Beside the model of a cell: family, head, dtype and what of it is trained.
PLAIN = {
    "ranks": "1", "strategy": "single", "activations": "kept", "shards": "on device", "rows": "padded",
    "sums": "each micro-batch", "budget": "no budget",
}  # fmt: skip


def allowed(row: Row) -> bool:
    """One device has one rank; only fsdp2 has shards to offload, and a choice when gradients are summed over ranks.

    A budget goes with everything.
    """
    alone = row.get("strategy") == "single" and row.get("ranks", "1") != "1"
    cut = row.get("shards") == "offloaded" or row.get("sums") == "each update"
    return not alone and (not cut or row.get("strategy", "fsdp2") == "fsdp2")


def plain(row: Row) -> Row:
    """The cell that a cell is compared with."""
    return row | PLAIN


def name_of(row: Row) -> str:
    """A cell in words."""
    return ", ".join(row.values())


@dataclass(frozen=True, kw_only=True)
class Double(Tiny):
    """In float64."""

    def load(self, context: LoadContext) -> Any:
        return super().load(context).double()


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Whole trained parameters by name, before and after; loss and norm of each optimiser step; whether it was sharded.

    `micro`: micro-batches of an optimiser step, the most that one had.
    """

    begun: dict[str, torch.Tensor]
    values: dict[str, torch.Tensor]
    losses: list[float]
    norms: list[float]
    sharded: bool
    micro: int


def backbone(row: Row) -> Tiny:
    """The model of a cell: the smallest that has every kind of layer and several heads."""
    kind = Double if row["dtype"] == "float64" else Tiny
    return kind(
        family=row["family"], hidden_size=16, layers=2, heads=2, kv_heads=1, intermediate_size=32,  # type: ignore[arg-type]
        tie_embeddings=row["head"] == "tied", sliding_window=6, seed=0,
    )  # fmt: skip


def strategy(row: Row) -> Any:
    """What the trainer is given."""
    if row["strategy"] == "fsdp2":
        sums = "unsharded" if row["sums"] == "each update" else "sharded"
        return FSDP2Strategy(cpu_offload=row["shards"] == "offloaded", accumulate=sums)
    return {"single": "auto", "ddp": "ddp"}[row["strategy"]]


def trained(row: Row, fault: str | None = None) -> Trained:
    """Runs a cell on the ranks that there are, with a fault planted if one is named. Collective."""
    torch.set_num_threads(1)
    assert Ranks.current().size == int(row["ranks"])
    with pytest.MonkeyPatch.context() as patch:
        if fault is not None:
            FAULTS[fault].plant(patch)
        return _fitted(row)


def _fitted(row: Row) -> Trained:
    budget = {"micro_batches": 1, "tokens_per_micro_batch": BUDGET} if row["budget"] != "no budget" else {}
    module, data = module_of(
        lr=LR, backbone=backbone(row), activation_checkpointing=row["activations"] == "recomputed",
        adapter=LoRA(rank=2, alpha=4.0) if row["trained"] == "lora" else None,
        layout=Packed() if row["rows"] == "packed" else Padded(), **budget,
    )  # fmt: skip
    notes = Notes()
    seen: list[dict[str, Any]] = []
    module.log_dict = lambda values: seen.append(dict(values))  # type: ignore[assignment,method-assign] # Lightning's are float32
    trainer = pl.Trainer(
        strategy=strategy(row), devices=int(row["ranks"]), accelerator="cpu", max_steps=UPDATES, logger=False,
        accumulate_grad_batches=module.plan.cut.micro, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[notes],
    )  # fmt: skip
    try:
        trainer.fit(module, data)
    finally:
        module.close()
    values = whole_values(module.policy)
    numbers = {key: [float(one[f"update/{key}"]) for one in seen] for key in ("loss", "grad_norm")}
    return Trained(
        begun=notes.values, values=values, losses=numbers["loss"], norms=numbers["grad_norm"],
        sharded=sharding_of(module.policy) is not None, micro=notes.micro,
    )  # fmt: skip


def whole_values(policy: Any) -> dict[str, torch.Tensor]:
    """What is trained. Collective."""
    return {name: full(p).clone() for name, p in policy.named_parameters() if p.requires_grad}


class Notes(pl.Callback):
    """What is trained before the first update, and the most micro-batches of an optimiser step."""

    values: dict[str, torch.Tensor]
    micro = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module: Any = pl_module
        self.values = whole_values(module.policy)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.micro = max(self.micro, batch.per_update)


def difference(got: Trained, want: Trained, dtype: str) -> float:
    """The largest difference of parameters, losses and norms, in units of what is allowed: at most 1 when all is well."""
    exact = EXACT[dtype]
    if list(got.values) != list(want.values) or len(got.losses) != len(want.losses):
        return float("inf")
    moved = max(float((got.values[name] - value).abs().max()) for name, value in want.values.items())
    losses = max(abs(a - b) for a, b in zip(got.losses, want.losses, strict=True))
    norms = max(abs(a / b - 1) for a, b in zip(got.norms, want.norms, strict=True))
    return max(moved / (UPDATES * LR * 2), losses, norms) / exact


def cells_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Cells, and the plain ones beside them, by number of ranks: each number of ranks is started once."""
    wanted: dict[str, list[Row]] = {}
    for row in rows:
        for one in (plain(row), row):
            here = wanted.setdefault(one["ranks"], [])
            if one not in here:
                here.append(one)
    return wanted


def all_trained(rows: list[Row]) -> list[Trained]:
    """In turn, in one world."""
    return [trained(row) for row in rows]


def run_cells(rows: Iterable[Row]) -> dict[str, list[Trained]]:
    """By name of the cell: what each rank ended with."""
    found: dict[str, list[Trained]] = {}
    for ranks, cells in cells_of(rows).items():
        by_rank = run_ranks(int(ranks), all_trained, cells)
        found |= {name_of(cell): list(every) for cell, every in zip(cells, zip(*by_rank, strict=True), strict=True)}
    return found
