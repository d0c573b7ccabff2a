"""How often gradients cross between ranks in an optimiser step of several micro-batches, and that the sum is the same."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist

from delta_lightning.strategies import FSDP2Strategy
from support.runs import MICRO, STEPS, UPDATES, run
from support.world import run_ranks

pytestmark = pytest.mark.timeout(300)
UNITS = 3  # two decoder layers, and embedding, norm and head


class Count(pl.Callback):
    """Sums of gradients over ranks: reduce-scatters of `fully_shard`, or buckets of DDP."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, self.largest = 0, 0
        name = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"  # torch < 2.13
        real = getattr(dist, name)

        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            return real(*args, **options)

        patch.setattr(dist, name, counted)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        model: Any = trainer.strategy.model
        if not isinstance(model, torch.nn.parallel.DistributedDataParallel):
            return
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        def counted(state, bucket):  # type: ignore[no-untyped-def]  # DDP wants its own types or none
            self.count += 1
            return allreduce_hook(state, bucket)

        model.register_comm_hook(None, counted)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Numbers of gradients that this rank holds after a backward pass."""
        held = 0
        for unit in pl_module.policy.modules():
            for parameter in unit._get_fsdp_state()._fsdp_param_group.fsdp_params if hasattr(unit, "_get_fsdp_state") else ():
                whole = (parameter.unsharded_accumulated_grad, getattr(parameter, "_unsharded_param", None))
                held += sum(value.numel() for value in (whole[0], getattr(whole[1], "grad", None)) if value is not None)
        self.largest = max(self.largest, held)


def counted(strategy: Any) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        count = Count(patch)
        ended = run(strategy, devices=2, lr=0.05, callbacks=[count])
    return {"count": count.count, "held": count.largest, "values": ended.values}


def world() -> dict[str, dict[str, Any]]:
    return {
        "ddp": counted("ddp"), "sharded": counted(FSDP2Strategy()), "unsharded": counted(FSDP2Strategy(accumulate="unsharded")),
        "bfloat16": counted(FSDP2Strategy(accumulate="unsharded", compute_dtype="bfloat16")),
        "bfloat16, sharded": counted(FSDP2Strategy(compute_dtype="bfloat16")),
    }  # fmt: skip


@pytest.fixture(scope="module")
def found() -> list[dict[str, dict[str, Any]]]:
    return run_ranks(2, world)


def test_one_sum_for_each_optimiser_step(found: list[dict[str, dict[str, Any]]]) -> None:
    updates = STEPS * UPDATES
    assert MICRO > 1
    for one in found:
        assert one["ddp"]["count"] == updates, "one bucket, once, not for every micro-batch"
        assert one["unsharded"]["count"] == one["bfloat16"]["count"] == updates * UNITS
        assert one["sharded"]["count"] == updates * UNITS * MICRO


def test_it_costs_a_whole_gradient(found: list[dict[str, dict[str, Any]]]) -> None:
    numbers = sum(value.numel() for value in found[0]["sharded"]["values"].values())
    for one in found:
        assert one["sharded"]["held"] == 0
        assert one["unsharded"]["held"] == one["bfloat16"]["held"] == numbers


@pytest.mark.parametrize(("one", "other"), [("sharded", "unsharded"), ("bfloat16, sharded", "bfloat16"), ("sharded", "ddp")])
def test_the_sum_is_the_same(found: list[dict[str, dict[str, Any]]], one: str, other: str) -> None:
    for rank in found:
        for name, value in rank[one]["values"].items():
            torch.testing.assert_close(rank[other]["values"][name], value, atol=5e-7, rtol=0)
