"""Sharded ranks of which one runs out of memory in scoring: it stays in step, and all begin again together, or end together."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

from delta_lightning.models import Packed
from delta_lightning.models import scorer as scoring
from delta_lightning.models.in_step import in_step, read
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer import view
from delta_lightning.trainer.cache import HiddenCache
from delta_lightning.trainer.memory import OutOfMemory, is_out_of_memory
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.reference import ReferencePolicy
from support.lora import adapted
from support.models import tiny_model
from support.room import refusing
from support.runs import UPDATES, run
from support.sharded import cut, gradients, is_cut
from support.steps import StepSetup, by_sequence, make_buffer
from support.world import run_ranks
from trainer.test_reference import ToyKL

MICRO = 4  # two of each of two updates

# What fails, and at which call, in a pass over `MICRO` micro-batches by the policy, and its reference if there is one.
Place = Callable[[Any, Any], tuple[Any, str]]
PLACES: dict[str, tuple[Place, list[int]]] = {
    "embedding": (lambda policy, frozen: (policy.model.embed_tokens, "forward"), [1]),
    "rotation, between embedding and layers": (lambda policy, frozen: (policy.model.rotary_emb, "forward"), [2]),
    "first layer": (lambda policy, frozen: (policy.model.layers[0].mlp, "forward"), [1, MICRO]),
    "last layer": (lambda policy, frozen: (policy.model.layers[1].mlp, "forward"), [1, MICRO]),
    "norm": (lambda policy, frozen: (policy.model.norm, "forward"), [1]),
    "head": (lambda policy, frozen: (scoring, "chunked_head"), [1, MICRO]),
    "before a pass": (lambda policy, frozen: (view, "trimmed"), [1, MICRO]),
    "after a pass": (lambda policy, frozen: (view, "widened"), [1, MICRO]),
    "cache": (lambda policy, frozen: (HiddenCache, "store"), [1, MICRO]),
    "taking what was gathered": (lambda policy, frozen: (FSDPParamGroup, "wait_for_unshard"), [3]),
    "gathering the root or a layer": (lambda policy, frozen: (FSDPParamGroup, "unshard"), [1, 2, 4]),
}
FROZEN: dict[str, tuple[Place, list[int]]] = {
    "reference's layer": (lambda policy, frozen: (frozen.model.model.layers[1].mlp, "forward"), [1, MICRO]),
    "policy's layer": (lambda policy, frozen: (policy.model.layers[1].mlp, "forward"), [2]),
    "either's head": (lambda policy, frozen: (scoring, "chunked_head"), [2, 2 * MICRO]),
    "after either's pass": (lambda policy, frozen: (view, "widened"), [2, 3]),
}


def compared(policy: Any, setup: StepSetup, owner: Any, name: str, call: int) -> None:
    """Out of memory on rank 1 ends where half the budget from the beginning ends, and leaves the model as it was."""
    said: list[str] = []
    with refusing(owner, name, call=call, rank=1):
        got = make_buffer(policy, setup, say=said.append)
    advised = re.search(r"tokens_per_micro_batch=(\d+)$", said[0])
    assert advised is not None and len(said) == 1
    want = make_buffer(policy, replace(setup, budget=int(advised[1])))
    assert got.per_update == want.per_update > setup.micro
    one, other = by_sequence(want), by_sequence(got)
    assert one.keys() == other.keys()
    assert all(torch.allclose(torch.tensor(one[key]), torch.tensor(other[key]), atol=1e-5) for key in one)
    assert torch.allclose(sums(got), sums(want), atol=1e-4)


def sums(buffer: Any) -> torch.Tensor:
    """Of the log-probabilities of each sequence under policy and reference, in the order of sequences."""
    one = buffer.experience
    both = [one.old_logprobs_BT, *([] if one.reference_logprobs_BT is None else [one.reference_logprobs_BT])]
    return torch.stack([values.sum(1) for values in both])[:, one.batch.sequence_ids_B.argsort()]


def everywhere(kind: str) -> list[str]:
    """Every place in turn; those that were tried."""
    torch.set_num_threads(1)
    build = (lambda: recompute_layers(tiny_model())) if kind == "recomputing, offload" else tiny_model
    policy = cut(build, offload=kind == "recomputing, offload")
    own = [layer.__dict__.get("forward") for layer in policy.model.layers]
    places, setup, frozen = PLACES, StepSetup(), None
    if kind in ("reference", "adapter"):
        policy = cut(adapted) if kind == "adapter" else policy
        other = policy if kind == "adapter" else tiny_model(seed=7)  # a base is the reference of its adapter
        frozen = ReferencePolicy(other, device=torch.device("cpu"), ranks=Ranks.current()).scorer(1.0)
        places, setup = FROZEN, StepSetup(penalties=(ToyKL(),), reference=frozen)
    tried = []
    for title, (place, calls) in places.items():
        for call in calls:
            compared(policy, setup, *place(policy, frozen), call)
            assert [layer.__dict__.get("forward") for layer in policy.model.layers] == own and is_cut(policy)
            tried.append(title)
    if kind != "adapter":
        alone = gradients(build())
        assert all(torch.allclose(value, alone[name], atol=1e-5) for name, value in gradients(policy).items())
    return tried


@pytest.mark.parametrize("kind", ["plain", "recomputing, offload", "reference", "adapter"])
def test_ranks_begin_again_wherever_one_runs_out(kind: str) -> None:
    for tried in run_ranks(2, everywhere, kind):
        assert set(tried) == set(PLACES if kind in ("plain", "recomputing, offload") else FROZEN)


def beside_a_whole_policy() -> None:
    """As under ddp: the reference is sharded, the policy is not."""
    frozen = ReferencePolicy(tiny_model(seed=7), device=torch.device("cpu"), ranks=Ranks.current()).scorer(1.0)
    policy, setup = tiny_model(), StepSetup(penalties=(ToyKL(),), reference=frozen)
    compared(policy, setup, policy.model.layers[1].mlp, "forward", 2)
    compared(policy, setup, frozen.model.model.layers[1].mlp, "forward", 2)


def test_ranks_begin_again_beside_a_sharded_reference() -> None:
    run_ranks(2, beside_a_whole_policy)


def twice() -> tuple[str, bool]:
    policy = cut(tiny_model)
    with refusing(policy.model.layers[0].mlp, "forward", times=1000, rank=1), pytest.raises(OutOfMemory) as ended:
        make_buffer(policy, StepSetup())
    return str(ended.value), ended.value.agreed


def test_a_second_time_ends_all_ranks_with_the_same_message() -> None:
    (text, agreed), other = run_ranks(2, twice)
    assert (text, agreed) == other and agreed
    assert "out of memory while scoring, in micro-batches of up to" in text and "(rank 1: CUDA out of memory" in text


def let_go() -> list[bool]:
    """Whether what the failed layer held is still there, whenever parameters are gathered after it."""
    policy, held, there, gather = cut(tiny_model), list[Any](), list[bool](), FSDPParamGroup.unshard

    def crowded(hidden_states: torch.Tensor) -> torch.Tensor:
        large = torch.empty_like(hidden_states)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def watched(self: Any, *args: Any) -> None:
        there.extend(one() is not None for one in held[-1:])
        gather(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy.model.layers[0].mlp, "forward", crowded)
        patch.setattr(FSDPParamGroup, "unshard", watched)
        with pytest.raises(OutOfMemory):
            make_buffer(policy, StepSetup())
    return there


def test_what_the_pass_held_is_let_go_before_anything_is_gathered() -> None:
    for there in run_ranks(2, let_go):
        assert there and not any(there)


def ungathered() -> tuple[str, bool]:
    """No rank can gather: none waits for another here."""
    policy = cut(tiny_model)
    with refusing(FSDPParamGroup, "unshard", call=2, times=1000), pytest.raises(OutOfMemory) as ended:
        make_buffer(policy, StepSetup())
    return str(ended.value), ended.value.agreed


def test_a_rank_that_cannot_gather_ends_the_run() -> None:
    for text, agreed in run_ranks(2, ungathered):
        assert "out of memory while scoring" in text and not agreed


def other_errors() -> None:
    policy = cut(tiny_model)

    def broken(model: Any) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"), torch.no_grad(), in_step([policy], is_out_of_memory):
        read(policy, broken)


def test_other_errors_are_raised_at_once() -> None:
    run_ranks(2, other_errors)


def whole_runs(folder: Path) -> list[dict[str, torch.Tensor]]:
    """Memory runs out in the first step; the run goes on, and once more from the end of that step."""
    options = {"layout": Packed(), "cache": HiddenCache(device_gib=0, host_gib=0), "devices": 2}
    save = ModelCheckpoint(folder, "{step}", every_n_train_steps=UPDATES, save_top_k=-1)
    with refusing(scoring, "chunked_head", call=2, rank=1):
        first = run(FSDP2Strategy(), folder=folder, callbacks=[save], **options)
    return [first.values, run(FSDP2Strategy(), checkpoint=folder / f"step={UPDATES}.ckpt", **options).values]


@pytest.mark.timeout(600)
def test_a_sharded_run_goes_on_with_half_and_is_resumed_with_it(tmp_path: Path) -> None:
    """Rows are packed, and hidden states computed again after the scoring pass."""
    want = run(layout=Packed()).values
    for first, resumed in run_ranks(2, whole_runs, tmp_path):
        assert all(float((first[name] - value).abs().max()) <= 3e-5 for name, value in want.items())
        assert all(torch.equal(resumed[name], value) for name, value in first.items())
