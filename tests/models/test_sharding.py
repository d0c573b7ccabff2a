"""A sharded model says, samples and learns what the whole one does, and is in shards again whenever nobody is looking."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch

from delta_lightning.errors import RunError
from delta_lightning.models.recomputing import recompute_layers
from delta_lightning.models.scorer import Scorer
from delta_lightning.models.sharding import compute_dtype, device_of, full, whole
from delta_lightning.models.spreading import twin
from delta_lightning.samplers import HFSampler
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import SamplingParams
from support.models import tiny_model
from support.sampling import context, prompts
from support.sharded import LENGTHS, completions, cut, first_ratio, gradients, is_cut, probe, values
from support.world import run_ranks

KINDS = {
    "qwen3, tied": {"family": "qwen3", "tie_word_embeddings": True},
    "qwen3, untied": {"family": "qwen3", "tie_word_embeddings": False},
    "olmo3, tied": {"family": "olmo3", "tie_word_embeddings": True},
    "olmo3, untied": {"family": "olmo3", "tie_word_embeddings": False},
}
OF_RANK = {0: LENGTHS, 1: LENGTHS[:1]}  # prompts: ranks decode different numbers of positions


def build(kind: str) -> Any:
    return tiny_model(vocabulary=16, **KINDS[kind])


def one_kind(kind: str) -> dict[str, Any]:
    """What this rank finds out about a model that only rank 0 has built."""
    rank, built = Ranks.current().rank, []

    def load() -> Any:
        built.append(rank)
        return build(kind)

    model = cut(load)
    found: dict[str, Any] = {"built": built, "cut": [is_cut(model)], "head dtype": compute_dtype(model)}
    found["tied"] = model.lm_head.weight is model.model.embed_tokens.weight
    found["bytes"] = sum(p.to_local().numel() for p in model.parameters())
    found["buffers"] = {name: buffer.clone() for name, buffer in model.named_buffers()}
    # Sampling first: it must work in a model that has never run.
    found["completions"] = completions(model, OF_RANK[rank])
    found["nothing"] = completions(model, LENGTHS[: 1 - rank])
    found["cut"].append(is_cut(model))
    early = HFSampler().open(context(model)).generate(
        prompts([4]), num_completions=3, params=SamplingParams(max_new_tokens=8), seed=0
    )  # fmt: skip
    found["first"] = [c.sample_index for c in islice(early, 1)]
    found["whole inside"] = not is_cut(model)
    early.close()
    found["cut"].append(is_cut(model))
    found["probe"] = probe(model)
    found["cut"].append(is_cut(model))
    found["ratio"] = first_ratio(model)
    found["gradients"] = gradients(model, scale=2.0 * (rank == 0))
    found["cut"].append(is_cut(model))
    with Scorer(model=model).head() as head:
        found["head"] = head.weight_VD
    copy = twin(model)
    found["values"], found["twin"] = values(model), values(copy)
    found["twin probe"] = probe(copy)
    found["recomputed"] = gradients(recompute_layers(model), scale=2.0 * (rank == 0))
    return found


def world() -> dict[str, Any]:
    """All that ranks are asked in this file: starting them takes longest."""
    return {kind: one_kind(kind) for kind in KINDS} | {"bfloat16": bfloat16_and_offload(), "failing": failing()}


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return run_ranks(2, world)


@pytest.mark.parametrize("kind", KINDS)
def test_only_rank_0_builds_it_and_all_hold_half(found: list[dict[str, Any]], kind: str) -> None:
    model = build(kind)
    assert [one[kind]["built"] for one in found] == [[0], []]
    for one in found:
        mine = one[kind]
        assert mine["bytes"] == pytest.approx(sum(p.numel() for p in model.parameters()) / 2, rel=0.01)
        assert mine["tied"] == KINDS[kind]["tie_word_embeddings"]
        assert all(torch.equal(value, p) for value, p in zip(mine["values"].values(), model.parameters(), strict=True))
        assert list(mine["values"]) == [name for name, _ in model.named_parameters()]
        assert mine["buffers"].keys() == dict(model.named_buffers()).keys()
        assert all(torch.equal(buffer, model.get_buffer(name)) for name, buffer in mine["buffers"].items())
        assert all(mine["cut"]), "something stayed whole"
        assert mine["head dtype"] is torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_sample_what_one_rank_samples(found: list[dict[str, Any]], kind: str) -> None:
    lengths = []
    for rank, one in enumerate(found):
        want = completions(build(kind), OF_RANK[rank])
        assert one[kind]["completions"] == want
        lengths.append(max(map(len, want.values())))
        assert one[kind]["nothing"] == completions(build(kind), LENGTHS[: 1 - rank]), "a rank without prompts"
        assert one[kind]["whole inside"] and len(one[kind]["first"]) == 1
    assert lengths[0] != lengths[1] or len(OF_RANK[0]) != len(OF_RANK[1])


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_whole_model(found: list[dict[str, Any]], kind: str) -> None:
    model = build(kind)
    for one in found:
        torch.testing.assert_close(one[kind]["probe"], probe(model), atol=0, rtol=0)
        torch.testing.assert_close(one[kind]["twin probe"], probe(model), atol=0, rtol=0)
        assert one[kind]["ratio"] == 0, "the first ratio of a rollout step is not exactly 1"
        assert torch.equal(one[kind]["head"], model.lm_head.weight)
        assert all(torch.equal(a, b) for a, b in zip(one[kind]["twin"].values(), one[kind]["values"].values(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["gradients", "recomputed"])
def test_gradients_are_the_mean_over_ranks(found: list[dict[str, Any]], kind: str, which: str) -> None:
    """The ranks' losses are 2 and 0 times the same one: powers of two, so that nothing is rounded."""
    want = gradients(build(kind))
    for one in found:
        assert all(torch.equal(value, want[name]) for name, value in one[kind][which].items())


def bfloat16_and_offload() -> dict[str, Any]:
    model = cut(partial(build, "qwen3, untied"), compute_dtype=torch.bfloat16, reduce_dtype=torch.float32, offload=True)
    found: dict[str, Any] = {"ratio": first_ratio(model), "dtype": compute_dtype(model), "own": model.lm_head.weight.dtype}
    with whole(model):
        found["inside"] = model.lm_head.weight.dtype
    found["device"], found["sum"] = device_of(model).type, gradients(model)["model.norm.weight"].dtype
    found["completions"], found["probe"] = completions(model, LENGTHS), probe(model)
    return found


def test_computing_in_bfloat16_keeps_float32_weights_and_sums(found: list[dict[str, Any]]) -> None:
    rounded = build("qwen3, untied")
    for parameter in rounded.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)  # buffers, such as rotary frequencies, stay float32
    for one in (one["bfloat16"] for one in found):
        assert one["ratio"] == 0
        assert (one["dtype"], one["inside"]) == (torch.bfloat16, torch.bfloat16)
        assert (one["own"], one["sum"]) == (torch.float32, torch.float32)
        assert one["device"] == "cpu"
        assert torch.equal(one["probe"], probe(rounded)), "as a model that was rounded to bfloat16"
        assert one["completions"] == completions(rounded, LENGTHS)


def failing() -> str:
    def load() -> Any:
        raise OSError("no such model")

    try:
        cut(load)
    except (OSError, RunError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def test_a_model_that_cannot_be_loaded_ends_every_rank(found: list[dict[str, Any]]) -> None:
    first, second = (one["failing"] for one in found)
    assert first == "OSError: no such model"
    assert second.startswith("RunError: the model could not be loaded on rank 0")


def test_without_shards_nothing_happens() -> None:
    model = build("qwen3, tied")
    with whole(model):
        assert probe(model).shape == (6,)
    assert full(model.lm_head.weight).data_ptr() == model.lm_head.weight.data_ptr()
    assert compute_dtype(model.to(torch.bfloat16)) is torch.bfloat16
