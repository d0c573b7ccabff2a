"""Training with vLLM as the sampler: it samples what the trainer scores, at each version, and faults are caught."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from delta_lightning.errors import RunError
from delta_lightning.interfaces import SamplerContext
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.samplers import VLLMSampler
from delta_lightning.samplers.vllm import VLLMSession
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof, check_text
from delta_lightning.types import SamplingParams
from support.cli import Invoke, invoke  # noqa: F401 - a fixture
from support.copies import first_half, nothing, swapped_layers
from support.models import NumberTokenizer
from support.prompts import number_prompts, train
from support.vllm_runs import module_with, ranks_agree, sampled_what_it_scored, train_on_two_ranks
from support.world import run_ranks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
SHAPE = ("hidden_size=64", "heads=2", "kv_heads=1", "layers=2", "context=128", "sliding_window=8")


LORA = ("--model.adapter=LoRA", "--model.adapter.rank=4")  # vLLM is given merged weights


@pytest.mark.parametrize(("family", "adapter"), [("qwen3", ()), ("olmo3", ()), ("qwen3", LORA), ("olmo3", LORA)])
def test_a_run_samples_what_the_trainer_scores(
    family: str,
    adapter: tuple[str, ...],
    invoke: Invoke,  # noqa: F811
    tmp_path: Path,
) -> None:
    outcome = invoke(
        *adapter,
        "--model.sampler=VLLMSampler", "--model.sampler.cache_gib=0.25", f"--model.backbone.family={family}",
        *(f"--model.backbone.{option}" for option in SHAPE), "--model.optimizer.lr=0.01", "--trainer.max_epochs=3",
        "--model.sampling.max_new_tokens=24", "--model.sampling.temperature=0.8", "--model.sampling.top_p=0.9",
        "--trainer.check_val_every_n_epoch=1", "--model.verifier=support.odd.OddSum",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    sampled_what_it_scored(tmp_path / "run", 3)
    assert "sampler: vllm" in outcome.err


def test_a_run_with_stale_weights_stops_within_one_step(
    invoke: Invoke,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = VLLMSession._reload
    calls = iter(range(100))

    def only_at_first(self: VLLMSession, weights: Iterator[tuple[str, Tensor]]) -> None:
        if next(calls) < 3:  # the engine's start, the evaluation before training, the first rollout step
            load(self, weights)
        else:
            list(weights)

    monkeypatch.setattr(VLLMSession, "_reload", only_at_first)
    outcome = invoke(
        "--model.sampler=VLLMSampler", "--model.sampler.cache_gib=0.25", *(f"--model.backbone.{option}" for option in SHAPE),
        "--model.optimizer.lr=0.01", "--trainer.max_epochs=3", "--model.verifier=support.odd.OddSum",
    )  # fmt: skip
    assert outcome.code == 1
    assert "after the update to version 1 the sampler's log-probabilities" in outcome.err and "stale weights" in outcome.err


def train_twice() -> list[Any]:
    """Each rank with an engine of its own, then both with one."""
    backbone = Tiny(hidden_size=64, heads=2, kv_heads=1, layers=2, context=128, seed=0)
    sampling = SamplingParams(max_new_tokens=8)
    samplers = [VLLMSampler(cache_gib=0.25, tensor_parallel=count) for count in (1, 2)]
    return [train_on_two_ranks(module_with(sampler, backbone, sampling)) for sampler in samplers]


def test_two_ranks_have_an_engine_each_or_share_one() -> None:
    """The process group outlives the engines: `run_ranks` uses it afterwards."""
    for ended in zip(*run_ranks(2, train_twice), strict=True):
        ranks_agree(list(ended))


def engine(dtype: str = "auto", family: str = "qwen3") -> Iterator[SimpleNamespace]:
    model = Tiny(family=family, hidden_size=64, heads=2, kv_heads=1, layers=2, context=128, sliding_window=8).load(
        LoadContext()
    )  # type: ignore[arg-type]
    context = SamplerContext(model=model, tokenizer=NumberTokenizer(), device=torch.device("cpu"))
    session = VLLMSampler(cache_gib=0.25, dtype=dtype).open(context)  # type: ignore[arg-type]
    yield SimpleNamespace(model=model, session=session)
    session.close()


@pytest.fixture(scope="module", params=["qwen3", "olmo3"])
def served(request: pytest.FixtureRequest) -> Iterator[SimpleNamespace]:
    yield from engine(family=request.param)


def prove(session: Any, model: Any) -> None:
    """Two updates with training between them."""
    proof, book = WeightProof(WeightCheck(), number_prompts(), 128), MetricBook()
    for version in range(2):
        proof.deliver(session, version, model, book)
        proof.probe(session, version, model, book)
        train(model)


FAULTS = {
    "stale weights": (nothing, "after the update to version 0 .* did not arrive"),
    "half of the parameters": (first_half, "could not load the weights|did not arrive"),
    "two layers swapped": (swapped_layers, "after the update to version 0 .* arrived in another's place"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(served: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prove(served.session, served.model)
    fault, message = FAULTS[name]
    load = VLLMSession._reload

    def faulty(self: VLLMSession, weights: Iterable[tuple[str, Tensor]]) -> None:
        sent = list(weights)
        load(self, iter(fault(sent)))

    monkeypatch.setattr(VLLMSession, "_reload", faulty)
    with pytest.raises(RunError, match=message):
        prove(served.session, served.model)
    monkeypatch.undo()
    prove(served.session, served.model)  # and a whole update mends it


def test_a_tied_head_forgotten_is_caught(served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What vLLM does by itself on CPUs when a tied head comes once, under the embedding's name."""
    monkeypatch.setattr(served.session, "_tied", None)
    with pytest.raises(RunError, match="did not arrive"):
        prove(served.session, served.model)
    monkeypatch.undo()
    prove(served.session, served.model)


def test_another_tokenizer_is_caught(served: SimpleNamespace) -> None:
    params = SamplingParams(max_new_tokens=8)
    [completion] = served.session.generate(number_prompts(1), num_completions=1, params=params, seed=0)
    check_text(completion, NumberTokenizer())
    with pytest.raises(RunError, match="do not have the same tokenizer"):
        check_text(completion, byte_tokenizer())


def test_another_dtype_is_caught_and_can_be_allowed() -> None:
    for served in engine(dtype="bfloat16"):
        with pytest.raises(RunError, match="looks like another dtype"):
            prove(served.session, served.model)
        proof = WeightProof(WeightCheck(mean_nats=0.05, max_nats=1.0), number_prompts(), 128)
        book = MetricBook()
        proof.deliver(served.session, 3, served.model, book)
        proof.probe(served.session, 3, served.model, book)
