"""Out of memory: known by what allocators say, answered once with half the budget, then explained; no rollout is lost."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from delta_lightning.errors import RunError
from delta_lightning.models import Packed, Padded
from delta_lightning.testing.worlds import make_batch
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.memory import (
    MicroBudget,
    OutOfMemory,
    Sizes,
    bounded,
    is_out_of_memory,
    micro_batches,
    recut,
    sizes_of,
)
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from support.models import tiny_model
from support.room import room
from support.runs import UPDATES, run
from support.steps import StepSetup, by_sequence, make_buffer
from support.world import run_ranks

CPU = "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def test_what_allocators_say() -> None:
    assert all(map(is_out_of_memory, (RuntimeError(CPU), torch.OutOfMemoryError("x"), MemoryError())))
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(OutOfMemory("scoring", "out of memory", "Try less", agreed=True)), "said already"
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        torch.empty(1 << 60)
    with (
        pytest.raises(OutOfMemory, match=r"while trying .*DefaultCPUAllocator"),
        bounded(lambda: ("trying", "Try less"), Ranks()),
    ):
        torch.empty(1 << 60)
    with pytest.raises(KeyError), bounded(lambda: ("trying", "Try less"), Ranks()):
        raise KeyError("other errors pass")


def test_the_message_says_what_to_set_and_survives_pickling() -> None:
    doing, remedy = micro_batches("scoring", Sizes(largest=100, row=10))
    error = OutOfMemory(doing, "no more", remedy, agreed=False)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert "micro-batches of up to 100 tokens (no more). Set --model.tokens_per_micro_batch=50 or less" in str(one)
        assert "fsdp2" in str(one) and "activation_checkpointing" in str(one) and isinstance(one, RunError)


def test_what_helps_follows_from_the_longest_sequence() -> None:
    assert "Set --model.tokens_per_micro_batch=60 or less" in micro_batches("scoring", Sizes(largest=100, row=60))[1]
    alone = micro_batches("scoring", Sizes(largest=100, row=100))[1]
    assert alone.startswith("One sequence alone takes as many") and "tokens_per_micro_batch" not in alone
    assert "Try fewer --model.sampling.max_new_tokens, --model.activation_checkpointing=true" in alone
    batch = make_batch([4, 3], rewards=[0.0, 1.0], groups=[0, 0])
    assert sizes_of(batch, [slice(0, 2)], Padded()) == (12, 6)


def test_an_update_that_does_not_fit_is_explained() -> None:
    budget, batch = MicroBudget(None), make_batch([4, 3], rewards=[0.0, 1.0], groups=[0, 0])
    budget.scored(lambda *_: None, batch, [slice(0, 2)], Cut(num_groups=1, updates=1, micro=1), Ranks(), lambda line: None)
    said = r"out of memory while updating, in micro-batches of up to 12 tokens .*Set --model.tokens_per_micro_batch=6 or less"
    with pytest.raises(OutOfMemory, match=said), budget.explained("updating"):
        torch.empty(1 << 60)


def test_a_sequence_over_the_budget_is_said_once() -> None:
    budget, said = MicroBudget(5), list[str]()
    batch, cut = make_batch([4, 1], rewards=[0.0, 1.0], groups=[0, 0]), Cut(num_groups=1, updates=1, micro=2)
    for _ in range(2):
        budget.scored(lambda *_: None, batch, [slice(0, 1), slice(1, 2)], cut, Ranks(), said.append)
    assert len(said) == 1 and said[0].startswith("one sequence takes 6 tokens, more than --model.tokens_per_micro_batch=5")


def test_rows_cut_again_stay_in_their_update_and_within_the_budget() -> None:
    batch = make_batch([6, 1, 9, 3, 2, 8], rewards=[0.0] * 6, groups=[0, 0, 0, 1, 1, 1])
    cut = Cut(num_groups=2, updates=2, micro=1, layout=Packed(), budget=11)
    again, micro = recut(batch, [slice(0, 3), slice(3, 6)], cut, Ranks())
    assert [part.stop - part.start for part in micro] == [1, 2, 1, 2]
    assert again.sequence_ids_B[:3].sort().values.tolist() == [0, 1, 2]
    assert sizes_of(again, micro, cut.layout).largest == 11
    assert torch.equal(again.token_ids_BT, batch.token_ids_BT[again.sequence_ids_B])


@pytest.mark.parametrize("budget", [None, 40])
def test_scoring_halves_once_and_keeps_the_rollouts(budget: int | None) -> None:
    setup, said = StepSetup(budget=budget), list[str]()
    want = make_buffer(tiny_model(), setup)
    largest = sizes_of(want.experience.batch, want.micro, Padded()).largest
    book = MetricBook()
    with room(largest // 2):
        got = make_buffer(tiny_model(), setup, book, say=said.append)
    assert got.per_update > want.per_update
    metrics = book.take(Ranks())
    assert metrics["micro_batches/per_update"] == got.per_update
    assert metrics["micro_batches/largest_tokens"] <= largest // 2, "what is trained, not what did not fit"
    assert len(said) == 1 and said[0].endswith(f"from now on with --model.tokens_per_micro_batch={largest // 2}")
    one, other = by_sequence(want), by_sequence(got)
    assert one.keys() == other.keys()
    assert all(torch.allclose(torch.tensor(one[key]), torch.tensor(other[key]), atol=1e-5) for key in one)


def test_a_second_time_ends_the_run_with_what_to_set() -> None:
    with room(1), pytest.raises(OutOfMemory, match=r"Set --model.tokens_per_micro_batch=\d+ or less"):
        make_buffer(tiny_model(), StepSetup())


def test_a_run_goes_on_with_half_says_so_once_and_is_resumed_with_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    want = run()
    with room(0, times=1):
        got = run(folder=tmp_path, callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=UPDATES, save_top_k=-1)])
    assert all(float((got.values[name] - value).abs().max()) <= 1e-5 for name, value in want.values.items())
    assert capfd.readouterr().err.count("trying once more") == 1
    resumed = run(checkpoint=tmp_path / f"step={UPDATES}.ckpt").values
    assert all(torch.equal(resumed[name], value) for name, value in got.values.items())
    older = torch.load(tmp_path / f"step={UPDATES}.ckpt", weights_only=False)
    assert older.pop("memory") == {"configured": None, "tokens": 64, "halved": True}
    torch.save(older, tmp_path / "older.ckpt")
    assert run(checkpoint=tmp_path / "older.ckpt").values.keys() == resumed.keys(), "one of an earlier version"


def on_one_of_two(setup: StepSetup) -> tuple[int, dict[int, list[float]]]:
    with room(0, times=1, rank=1):
        buffer = make_buffer(tiny_model(), setup)
    return buffer.per_update, by_sequence(buffer)


def test_ranks_begin_again_together() -> None:
    (first, here), (second, there) = run_ranks(2, on_one_of_two, StepSetup())
    assert first == second > 2
    want = by_sequence(make_buffer(tiny_model(), StepSetup()))
    for key, value in (here | there).items():
        assert torch.allclose(torch.tensor(value), torch.tensor(want[key]), atol=1e-5)


def test_a_halved_budget_is_kept_unless_the_config_changes() -> None:
    before, said = MicroBudget(64), list[str]()
    before.tokens, before.halved = 32, True
    same, changed = MicroBudget(64), MicroBudget(40)
    for one in (same, changed):
        one.load_state_dict(before.state_dict(), said.append)
    assert (same.tokens, same.halved) == (32, True) and (changed.tokens, changed.halved) == (40, False)
    assert len(said) == 1 and "tokens_per_micro_batch=32" in said[0] and "40 holds" in said[0]
    changed.load_state_dict(MicroBudget(64).state_dict(), said.append)
    assert len(said) == 1, "nothing had been halved"
