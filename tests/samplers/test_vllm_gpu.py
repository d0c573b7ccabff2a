"""vLLM beside the trainer on GPUs: rounding of bfloat16, its share of the memory, sleep, ranks. Not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from delta_lightning.errors import RunError
from delta_lightning.interfaces import SamplerContext
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import VLLMSampler
from delta_lightning.samplers.vllm import VLLMSession
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.weight_check import HALF_MAX, HALF_MEAN, WeightCheck, WeightProof
from delta_lightning.types import Prompt, SamplingParams
from support.models import NumberTokenizer
from support.prompts import number_prompts
from support.sampling import Done, sample
from support.world import run_ranks

pytestmark = [pytest.mark.vllm, pytest.mark.gpu, pytest.mark.timeout(900)]
SHARE = 0.3
DEVICE = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def model() -> Any:
    """In float32, which the engines here round to bfloat16."""
    tiny = Tiny(hidden_size=512, heads=8, kv_heads=4, layers=4, context=512)
    return tiny.load(LoadContext()).to(DEVICE)


@pytest.fixture(scope="module")
def session(model: Any) -> Iterator[VLLMSession]:
    options = VLLMSampler(dtype="bfloat16", memory_share=SHARE, sleep=True)
    opened = options.open(SamplerContext(model=model, tokenizer=NumberTokenizer(), device=DEVICE))
    assert isinstance(opened, VLLMSession)
    yield opened
    opened.close()


def prompts() -> list[Prompt]:
    return [
        Prompt(id=f"p{i}", text="", token_ids=tuple(2 + (7 * k + i) % 250 for k in range(n)), source="test", reference={})
        for i, n in enumerate([3, 40, 1, 12])
    ]


def gaps(model: Any, done: Done, temperature: float) -> torch.Tensor:
    """|raw log-probability of vLLM - that of the model| of every token."""
    given, found = {prompt.id: prompt for prompt in prompts()}, []
    for c in done.values():
        start = len(given[c.prompt_id].token_ids)
        ids = torch.tensor([[*given[c.prompt_id].token_ids, *c.token_ids]], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].float()
        wanted = torch.log_softmax(logits / temperature, -1).gather(1, ids[0, start:, None])[:, 0].cpu()
        found.append((wanted - torch.tensor(list(c.raw_logprobs))).abs())
    return torch.cat(found)


def used() -> int:
    free, total = torch.cuda.mem_get_info(DEVICE)
    return total - free


@pytest.mark.parametrize("params", [{}, {"temperature": 0.7, "top_p": 0.9, "top_k": 50}])
def test_logprobs_are_the_models_up_to_rounding(model: Any, session: VLLMSession, params: dict[str, Any]) -> None:
    session.update_weights(1, model.named_parameters())
    found = gaps(model, sample(session, prompts(), 8, max_new_tokens=64, **params), params.get("temperature", 1.0))
    assert 0 < float(found.mean()) < HALF_MEAN and float(found.max()) < HALF_MAX


def test_the_engine_fills_its_share_of_the_memory(session: VLLMSession, model: Any) -> None:
    session.update_weights(1, model.named_parameters())
    total = torch.cuda.mem_get_info(DEVICE)[1]
    assert 0.5 * SHARE * total < used() < (SHARE + 0.1) * total, "weights and cache, and what the trainer and CUDA take"


def test_sleep_frees_weights_and_cache_until_the_next_update(session: VLLMSession, model: Any) -> None:
    session.update_weights(1, model.named_parameters())
    total, awake = torch.cuda.mem_get_info(DEVICE)[1], used()
    for version in (2, 3):
        session.rest()
        assert awake - used() > 0.8 * SHARE * total
        with pytest.raises(RunError, match="while it sleeps"):
            session.generate(prompts(), num_completions=1, params=SamplingParams(), seed=0)
        with torch.no_grad():
            for value in model.parameters():
                value.mul_(1.05)
        session.update_weights(version, model.named_parameters())
        done = sample(session, prompts(), 4, max_new_tokens=32)
        assert {c.version for c in done.values()} == {version}
        assert float(gaps(model, done, 1.0).mean()) < HALF_MEAN


def test_the_probe_proves_weights_after_sleep(session: VLLMSession, model: Any) -> None:
    proof, book = WeightProof(WeightCheck(mean_nats=HALF_MEAN, max_nats=HALF_MAX), number_prompts(), 512), MetricBook()
    for version in (10, 11):
        session.rest()
        proof.deliver(session, version, model, book)
        proof.probe(session, version, model, book)


def test_the_generators_and_the_device_of_the_process_are_left_alone(session: VLLMSession, model: Any) -> None:
    torch.cuda.manual_seed(5)
    before, device = torch.cuda.get_rng_state(DEVICE), torch.cuda.current_device()
    session.update_weights(1, model.named_parameters())
    sample(session, prompts(), 4, top_p=0.9)
    assert torch.equal(torch.cuda.get_rng_state(DEVICE), before) and torch.cuda.current_device() == device


def on_its_own_gpu(tensor_parallel: int) -> tuple[str, float]:
    """The device of the engine's weights, and the mean difference of log-probabilities after an update."""
    ranks = Ranks.current()
    device = torch.device("cuda", ranks.rank)
    torch.cuda.set_device(device)
    model = Tiny(hidden_size=512, heads=8, kv_heads=4, layers=4, context=512).load(LoadContext()).to(device)
    there = SamplerContext(
        model=model, tokenizer=NumberTokenizer(), device=device, rank=ranks.rank, world_size=ranks.size, share=ranks.all_objects
    )
    options = VLLMSampler(dtype="bfloat16", memory_share=SHARE, tensor_parallel=tensor_parallel, sleep=True)
    session: Any = options.open(there)
    session.rest()
    session.update_weights(1, model.named_parameters())
    found = gaps(model, sample(session, prompts()[ranks.rank :: 2], 4, max_new_tokens=32), 1.0)
    [where] = session._engine.apply_model(lambda inner: str(next(inner.parameters()).device))
    session.close()
    return where, float(found.mean())


@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_two_ranks_on_two_gpus(tensor_parallel: int) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    for rank, (where, gap) in enumerate(run_ranks(2, on_its_own_gpu, tensor_parallel)):
        assert where == f"cuda:{rank}" and gap < HALF_MEAN
