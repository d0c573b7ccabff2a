"""A buffer survives a checkpoint bit for bit, read back with `weights_only=True`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from delta_lightning.tensor_struct import TensorStruct
from delta_lightning.trainer.buffer import Buffer
from delta_lightning.trainer.ranks import Ranks
from support.models import tiny_model
from support.steps import StepSetup, make_buffer


def assert_equal(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    for item in dataclasses.fields(a):
        x, y = getattr(a, item.name), getattr(b, item.name)
        if isinstance(x, TensorStruct):
            assert_equal(x, y)
        else:
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, item.name


def test_round_trip(tmp_path: Path) -> None:
    buffer = make_buffer(tiny_model(), StepSetup(micro=3))
    torch.save(buffer.state(), tmp_path / "buffer.pt")
    again = Buffer.from_state(torch.load(tmp_path / "buffer.pt", weights_only=True))
    for index in range(6):
        assert_equal(again.micro_batch(index), buffer.micro_batch(index))


def test_a_micro_batch_knows_its_place() -> None:
    parts = [make_buffer(tiny_model(), StepSetup(micro=3)).micro_batch(index) for index in range(6)]
    assert [part.update for part in parts] == [0, 0, 0, 1, 1, 1]
    assert [part.begins for part in parts] == [True, False, False] * 2
    assert [part.ends for part in parts] == [False, False, True] * 2


def test_totals_are_those_of_the_whole_optimiser_step() -> None:
    buffer = make_buffer(tiny_model(), StepSetup(micro=3))
    for update in range(2):
        experience, parts = buffer.mini_batch(update)
        totals = buffer.totals[update]
        assert totals.tokens == float(experience.batch.loss_mask_BT.sum())
        assert totals.sequences == experience.batch.num_sequences == 16 and totals.groups == 4
        assert sum(part.stop - part.start for part in parts) == 16


def test_a_mask_that_shrinks_takes_its_totals_along() -> None:
    buffer = make_buffer(tiny_model(), StepSetup(micro=3))
    experience, _ = buffer.mini_batch(1)
    keep = torch.ones_like(experience.batch.loss_mask_BT)
    keep[:4] = False
    smaller = buffer.shrunk(1, keep, Ranks())
    assert smaller.totals[0] == buffer.totals[0]
    assert smaller.totals[1].tokens == float(experience.batch.loss_mask_BT[4:].sum()) and smaller.totals[1].sequences == 12
    assert sum(int(smaller.micro_batch(k).experience.batch.loss_mask_BT.sum()) for k in (3, 4, 5)) == smaller.totals[1].tokens
    assert_equal(smaller.micro_batch(0), buffer.micro_batch(0))


@pytest.mark.gpu
def test_the_mask_of_a_restored_buffer_shrinks_with_sums_on_the_gpu() -> None:
    """NCCL adds up nothing that lies in main memory, where a restored buffer is."""
    buffer = make_buffer(tiny_model(), StepSetup(micro=3))
    seen: list[str] = []

    class Watched(Ranks):
        def all_sum(self, value: torch.Tensor) -> torch.Tensor:
            seen.append(value.device.type)
            return value

    keep = torch.ones_like(buffer.mini_batch(1)[0].batch.loss_mask_BT, device="cuda")
    assert buffer.shrunk(1, keep, Watched()).totals == buffer.totals and seen == ["cuda"]


def test_micro_batches_have_no_column_of_padding() -> None:
    buffer = make_buffer(tiny_model(), StepSetup(micro=3))
    for index in range(6):
        batch = buffer.micro_batch(index).experience.batch
        assert bool(batch.attention_mask_BT[:, -1].any())
