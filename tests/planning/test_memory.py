"""The account of a device, from hand-made numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from delta_lightning.models import Padded
from delta_lightning.planning.dry import Pass, Peaks
from delta_lightning.planning.flops import Shape
from delta_lightning.planning.kept import OptimizerCost, Weights
from delta_lightning.planning.machine import Machine, known_device
from delta_lightning.planning.memory import Demand, hidden_cache, memory_of, prefill_pass
from delta_lightning.planning.rollouts import StepSizes
from delta_lightning.planning.trial import CreditCost
from delta_lightning.trainer.cache import HiddenCache, Place
from delta_lightning.trainer.collate import Cut

CUT = Cut(num_groups=8, updates=2, micro=2, layout=Padded())
DEMAND = Demand(
    weights=Weights(total=4000, trained=4000, count=1000, trained_count=1000, largest=100, widest=100, layer=200, root=400),
    shape=Shape(matrices=500, hidden=10, vocabulary=50, query_width=8, key_value_width=4, windows=[None] * 3),
    optimizer=OptimizerCost(name="AdamW", state=8.0, step=4.0), machine=Machine(compute_bytes=4),
    sizes=StepSizes.of(CUT, completions=4, ranks=1, prompt_tokens=3, completion_tokens=7, attention="sdpa"),
    scoring=Peaks(forward=5000, kept=10, backward=0), updating=Peaks(forward=6000, kept=3000, backward=9000),
    prefill=Peaks(forward=700, kept=0, backward=0), credit=CreditCost(block=0, per_token=2.0, head=0), cache=HiddenCache(),
    caches_hidden=True, reference=False, sampler=0, sampler_sleeps=False, sampler_rows=8, sampler_cache=10**9,
)  # fmt: skip


def phases(demand: Demand) -> dict[str, dict[str, int]]:
    return {phase.name: phase.parts for phase in memory_of(demand).phases}


def test_one_device() -> None:
    memory = memory_of(DEMAND)
    assert memory.stays == {"parameters": 4000, "optimiser state": 8000, "rollout batch": 30 * 32 * 10}
    found = phases(DEMAND)
    tokens = 32 * 7
    assert found["scoring"] == {"activations and head chunk": 5000, "hidden states (cache)": tokens * 10 * 4}
    assert found["credit"] == {"hidden states (cache)": tokens * 40, "credit": 2 * tokens}
    assert found["update"]["gradients"] == 4000 and sum(found["update"].values()) == 4000 + 9000
    assert found["optimiser step"] == {"gradients": 4000, "temporaries": 4 * 100}
    assert not any("gradients" in found[name] for name in ("sampling", "scoring", "credit", "weight sync"))
    assert found["sampling"]["keys and values, twice while copied"] == 2 * 8 * (10 + 64) * 2 * 3 * 4 * 4
    assert memory.bytes == sum(memory.stays.values()) + max(sum(parts.values()) for parts in found.values())


def test_shards_and_what_is_gathered() -> None:
    machine = Machine(ranks=4, sharded=True, compute_bytes=2, gpu=True)
    memory = memory_of(replace(DEMAND, machine=machine, reference=True))
    assert [memory.stays[name] for name in ("parameters", "optimiser state", "reference policy")] == [1000, 2000, 1000]
    update = phases(replace(DEMAND, machine=machine))["update"]
    assert update["gathered parameters"] == 2 * (400 + 2 * 200)
    assert update["gradients"] == 1000 and "gradients before their sum over ranks" not in update
    whole = phases(replace(DEMAND, machine=replace(machine, reshard=False, unsharded_gradients=True)))["update"]
    assert whole["gathered parameters"] == 2 * 1000
    assert whole["gradients before their sum over ranks"] == 4 * 1000
    step = phases(replace(DEMAND, machine=machine))["optimiser step"]
    assert step == {"gradients": 1000, "temporaries": 4 * 1000 // 4}


def test_embedding_and_head_are_copied_before_a_sharded_pass_has_activations() -> None:
    machine = Machine(ranks=4, sharded=True, compute_bytes=2)
    small = replace(DEMAND, machine=machine, scoring=Peaks(forward=700, kept=10, backward=0))
    assert phases(small)["scoring"]["embedding and head, copied"] == 2 * 400
    assert phases(replace(small, machine=Machine(compute_bytes=2)))["scoring"]["activations and head chunk"] == 700


def test_ddp_keeps_the_buckets_in_which_gradients_are_summed() -> None:
    stays = memory_of(replace(DEMAND, machine=Machine(ranks=2, compute_bytes=4))).stays
    assert stays["buckets of gradients"] == stays["parameters"] == 4000


def test_offloaded_shards_are_in_main_memory() -> None:
    demand = replace(DEMAND, machine=Machine(ranks=2, sharded=True, compute_bytes=2, offload=True))
    memory = memory_of(demand)
    assert set(memory.stays) == {"rollout batch"}
    assert memory.host == {"parameters": 2000, "gradients": 2000, "optimiser state": 4000}
    assert not any("gradients" in parts for parts in phases(demand).values())


@pytest.mark.parametrize(
    ("budgets", "place"),
    [
        (HiddenCache(), Place.DEVICE),
        (HiddenCache(device_gib=0), Place.HOST),
        (HiddenCache(device_gib=0, host_gib=0), Place.RECOMPUTED),
    ],
)
def test_places_of_hidden_states(budgets: HiddenCache, place: Place) -> None:
    demand = replace(DEMAND, cache=budgets)
    assert hidden_cache(demand) == (place, 0 if place is Place.RECOMPUTED else 32 * 7 * 10 * 4)
    memory = memory_of(demand)
    assert ("hidden states" in memory.host) == (place is Place.HOST)
    again = {phase.name: phase.parts for phase in memory.phases}["credit"]
    assert ("activations and head chunk" in again) == (place is Place.RECOMPUTED)


def test_no_part_that_reads_hidden_states_no_cache() -> None:
    assert hidden_cache(replace(DEMAND, caches_hidden=False)) == (Place.RECOMPUTED, 0)
    assert "activations and head chunk" not in phases(replace(DEMAND, caches_hidden=False))["credit"]


def test_gradients_that_a_lone_micro_batch_makes_are_part_of_what_it_needs() -> None:
    cut = replace(CUT, micro=1)
    sizes = StepSizes.of(cut, completions=4, ranks=1, prompt_tokens=3, completion_tokens=7, attention="sdpa")
    assert sum(phases(replace(DEMAND, sizes=sizes))["update"].values()) == 9000


def test_an_optimiser_that_is_not_known_counts_as_adamw() -> None:
    assert memory_of(replace(DEMAND, optimizer=None)).stays["optimiser state"] == 8000


def test_an_engine_that_samples_leaves_the_policy_nothing_to_decode() -> None:
    memory = memory_of(replace(DEMAND, prefill=None, sampler=123))
    assert memory.stays["sampler's engine"] == 123
    assert sum({p.name: p.bytes for p in memory.phases}[name] for name in ("sampling",)) == 0


def test_an_engine_that_sleeps_is_there_while_it_samples_and_is_updated() -> None:
    memory = memory_of(replace(DEMAND, prefill=None, sampler=123, sampler_sleeps=True))
    assert "sampler's engine" not in memory.stays
    assert [phase.name for phase in memory.phases if "sampler's engine" in phase.parts] == ["sampling", "weight sync"]


def test_prefill() -> None:
    assert prefill_pass(100, 50, 1000) == Pass(rows=10, columns=100, trained=1)
    assert prefill_pass(5000, 50, 1000) == Pass(rows=1, columns=5000, trained=1)


def test_devices() -> None:
    assert known_device("H100") == (989e12, 80.0)
    with pytest.raises(ValueError, match="a100 or h100"):
        known_device("abacus")
