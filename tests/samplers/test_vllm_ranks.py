"""vLLM on several training ranks: an engine that two of them share, and one that joins the trainer's process group."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import SamplerContext, SamplerSession
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import VLLMSampler
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Prompt, SamplingParams
from support.models import NumberTokenizer
from support.sampling import largest_gap, sample, shift, tokens
from support.world import run_ranks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
TOLERANCE = 1e-4  # nats, float32


def model_of(family: str) -> Any:
    return Tiny(family=family, hidden_size=64, heads=2, kv_heads=2, layers=2, context=128, sliding_window=8).load(LoadContext())


def prompts() -> list[Prompt]:
    return [
        Prompt(id=f"p{i}", text="", token_ids=tuple(2 + (7 * k + i) % 250 for k in range(n)), source="test", reference={})
        for i, n in enumerate([3, 7, 1, 12, 5])
    ]


def open_on(model: Any, **options: Any) -> SamplerSession:
    ranks = Ranks.current()
    return VLLMSampler(cache_gib=0.25, **options).open(
        SamplerContext(
            model=model, tokenizer=NumberTokenizer(), device=torch.device("cpu"), rank=ranks.rank, world_size=ranks.size,
            share=ranks.all_objects,
        )
    )  # fmt: skip


def shared_engine(family: str) -> SimpleNamespace:
    """One engine over two ranks, of which rank 0 has four prompts, then three of them, and rank 1 one, then none."""
    before, rank = dict(os.environ), dist.get_rank()
    model = model_of(family)
    session = open_on(model, tensor_parallel=2)
    changed = {name for name in {*os.environ, *before} if os.environ.get(name) != before.get(name)}
    own = [prompts()[:4], prompts()[4:]][rank]
    first = sample(session, own, 3, top_k=50)
    shift(model)
    stale = largest_gap(model, own, sample(session, own, 3))
    session.update_weights(1, model.named_parameters())
    [probe, mine] = session.logprobs([[2, 3, 4, 5], [9, 8 + rank, 7]])
    running = session.generate(own, num_completions=2, params=SamplingParams(max_new_tokens=20), seed=0)
    if rank == 0:
        next(running)
        running.close()  # rank 1 reads on to the end
    read = len(list(running))
    second = sample(session, own[:3] if rank == 0 else [], 3)
    with pytest.raises(ConfigError, match="prompt p3: wanted at least one token"):  # of the other rank, and refused on both
        sample(session, [Prompt(id="p3", text="", token_ids=(), source="", reference={})] if rank == 1 else own[:1], 1)
    session.close()
    return SimpleNamespace(
        changed=changed, gaps=[largest_gap(model_of(family), own, first), largest_gap(model, own, second)], stale=stale,
        first=tokens(first), second=tokens(second), probe=probe, mine=mine, read=read, model=model.state_dict(),
    )  # fmt: skip


def sharded_weights() -> float:
    """The largest difference with a model that is sharded over the ranks, before and after an update."""
    from torch.distributed.fsdp import fully_shard

    model, whole = model_of("qwen3"), model_of("qwen3")
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    session = open_on(model, tensor_parallel=2)
    gaps = [largest_gap(whole, prompts(), sample(session, prompts(), 1))]
    with torch.no_grad():
        for value in (*model.parameters(), *whole.parameters()):
            value.mul_(1.1)
    receipt = session.update_weights(1, model.named_parameters())
    gaps.append(largest_gap(whole, prompts(), sample(session, prompts(), 1)))
    session.close()
    assert receipt.num_bytes == sum(4 * value.numel() for value in whole.parameters())
    return max(gaps)


def everything() -> dict[str, Any]:
    """One engine after another in the same processes, which are slow to start."""
    return {"qwen3": shared_engine("qwen3"), "olmo3": shared_engine("olmo3"), "sharded": sharded_weights()}


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    """What each of two ranks saw. That they could say so shows that the trainer's process group outlived the engines."""
    return run_ranks(2, everything)


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_two_ranks_share_an_engine(ranks: list[dict[str, Any]], family: str) -> None:
    first, second = (rank[family] for rank in ranks)
    for one in (first, second):
        assert max(one.gaps) < TOLERANCE < 0.05 < one.stale
        assert not {name for name in one.changed if not name.startswith(("VLLM_", "PYTEST_", "TORCHINDUCTOR_"))}
    assert (first.read, second.read) == (0, 2), "closing on one rank ends nothing on the other"
    assert torch.equal(first.probe, second.probe) and not torch.equal(first.mine, second.mine)


@pytest.mark.parametrize("family", ["qwen3", "olmo3"])
def test_draws_are_those_of_a_rank_alone(ranks: list[dict[str, Any]], family: str) -> None:
    first, second = (rank[family] for rank in ranks)
    model = model_of(family)
    session = open_on(model)
    alone = [tokens(sample(session, prompts(), 3, top_k=50))]
    model.load_state_dict(first.model)
    session.update_weights(1, model.named_parameters())
    alone.append(tokens(sample(session, prompts()[:3], 3)))
    session.close()
    assert alone == [first.first | second.first, first.second | second.second]
    assert {prompt for prompt, _ in second.first} == {"p4"} and not second.second, "each rank has its own prompts' only"


def test_sharded_weights_reach_a_shared_engine(ranks: list[dict[str, Any]]) -> None:
    assert max(rank["sharded"] for rank in ranks) < TOLERANCE


def one_rank_with_a_group() -> float:
    open_on(model_of("qwen3")).close()
    total = torch.ones(1)
    dist.all_reduce(total)
    return float(total)


def test_the_process_group_of_a_single_rank_outlives_the_engine() -> None:
    assert run_ranks(1, one_rank_with_a_group) == [1.0]


def test_ranks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.sampler\.tensor_parallel: wanted a divisor of the 1 training processes, got 2"
    ):
        open_on(model_of("qwen3"), tensor_parallel=2)
