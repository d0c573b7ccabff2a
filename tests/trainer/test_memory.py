"""Out of memory: known by what allocators say, answered once with half the budget, then explained; no rollout is lost."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from delta_lightning.errors import RunError
from delta_lightning.models import Packed
from delta_lightning.models.scorer import Scorer
from delta_lightning.testing.worlds import make_batch
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.collate import Cut
from delta_lightning.trainer.memory import MicroBudget, OutOfMemory, bounded, is_out_of_memory, largest_cost, recut
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.view import RolloutView
from delta_lightning.types import RolloutBatch
from support.models import tiny_model
from support.room import room
from support.runs import run
from support.sharded import cut as shard
from support.steps import StepSetup, by_sequence, make_buffer
from support.world import run_ranks

CPU = "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def test_what_allocators_say() -> None:
    assert all(map(is_out_of_memory, (RuntimeError(CPU), torch.OutOfMemoryError("x"), MemoryError())))
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(OutOfMemory("scoring", "out of memory", largest=1, agreed=True)), "said already"
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        torch.empty(1 << 60)
    with pytest.raises(OutOfMemory, match=r"while trying .*DefaultCPUAllocator"), bounded("trying", int, Ranks(), apart=True):
        torch.empty(1 << 60)
    with pytest.raises(KeyError), bounded("trying", int, Ranks(), apart=True):
        raise KeyError("other errors pass")


def test_the_message_says_what_to_set_and_survives_pickling() -> None:
    error = OutOfMemory("scoring", "no more", largest=100, agreed=False)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert "micro-batches of up to 100 tokens (no more). Set --model.tokens_per_micro_batch=50 or less" in str(one)
        assert "fsdp2" in str(one) and "activation_checkpointing" in str(one) and isinstance(one, RunError)


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
    assert largest_cost(again, micro, cut) == 11
    assert torch.equal(again.token_ids_BT, batch.token_ids_BT[again.sequence_ids_B])


@pytest.mark.parametrize("budget", [None, 40])
def test_scoring_halves_once_and_keeps_the_rollouts(budget: int | None) -> None:
    setup, said = StepSetup(budget=budget), list[str]()
    want = make_buffer(tiny_model(), setup)
    largest = largest_cost(want.experience.batch, want.micro, Cut(num_groups=1, updates=2, micro=2))
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


def test_a_run_goes_on_with_half_and_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    want = run()
    with room(0, times=1):
        got = run()
    assert all(float((got.values[name] - value).abs().max()) <= 1e-5 for name, value in want.values.items())
    assert capfd.readouterr().err.count("trying once more") == 1


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


def alone() -> str:
    """A rank of a sharded model that runs out: the others would wait for it inside the model, so neither enters here."""
    budget, batch = MicroBudget(None), make_batch([4, 3], rewards=[0.0, 1.0], groups=[0, 0])
    model = shard(tiny_model)

    def score(batch: RolloutBatch, micro: list[slice]) -> Any:
        view = RolloutView(
            batch, micro=micro, scorer=Scorer(model=model), needs=frozenset(), cache=HiddenCache(), ranks=Ranks.current(),
            seed=(0, 0),
        )  # fmt: skip
        with room(0):
            return view.logprobs_BT()

    with pytest.raises(OutOfMemory) as said:
        budget.scored(score, batch, [slice(0, 2)], Cut(num_groups=1, updates=1, micro=1), Ranks.current(), lambda line: None)
    assert not budget.halved
    return str(said.value)


def test_a_rank_of_a_sharded_model_cannot_begin_again() -> None:
    assert all("Set --model.tokens_per_micro_batch=" in text for text in run_ranks(2, alone))
