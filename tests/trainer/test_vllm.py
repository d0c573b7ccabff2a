"""Training with vLLM as the sampler: it samples what the trainer scores, at each version, and faults are caught."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta
from delta_lightning.data.arithmetic import Arithmetic
from delta_lightning.errors import RunError
from delta_lightning.interfaces import SamplerContext
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.samplers import VLLMSampler
from delta_lightning.samplers.vllm import VLLMSession
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof, check_text
from delta_lightning.types import SamplingParams
from support.cli import Invoke, invoke  # noqa: F401 - a fixture
from support.copies import first_half, nothing, swapped_layers
from support.models import NumberTokenizer
from support.odd import OddSum
from support.prompts import number_prompts, train
from support.world import run_ranks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
TOLERANCE = 1e-4  # nats, float32
SHAPE = ("hidden_size=64", "heads=2", "kv_heads=1", "layers=2", "context=128", "sliding_window=8")


def metrics(folder: Path) -> list[dict[str, str]]:
    [file] = folder.rglob("metrics.csv")
    with file.open() as lines:
        return list(csv.DictReader(lines))


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
    rows = metrics(tmp_path / "run")
    steps = [row for row in rows if row.get("mismatch/max_abs_nats")]
    assert len(steps) == 3
    for row in steps:
        assert float(row["mismatch/max_abs_nats"]) < TOLERANCE
        assert float(row["sync/probe_max_nats"]) < TOLERANCE
    assert all(float(row["sync/moved_max_nats"]) > 100 * TOLERANCE for row in steps[1:]), "or agreement shows nothing"
    assert "sampler: vllm" in outcome.err
    assert [row for row in rows if row.get("held_out/accuracy")]


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


def train_on_a_rank(tensor_parallel: int) -> tuple[dict[str, Tensor], float, float]:
    """Parameters after two steps, the mismatch of the last, and how far the probe had moved."""
    module = PolicyModule(
        backbone=Tiny(hidden_size=64, heads=2, kv_heads=1, layers=2, context=128, seed=0),
        sampler=VLLMSampler(cache_gib=0.25, tensor_parallel=tensor_parallel), verifier=OddSum(), advantage=GroupStandardised(),
        credit=Delta(), loss=ClippedSurrogate(), weighting=Constant(), reduction=TokenMean(), correction=NoCorrection(),
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3), sampling=SamplingParams(max_new_tokens=8),
        prompts_per_step=8, completions_per_prompt=4, updates_per_step=2, micro_batches=1,
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    try:
        trainer.fit(module, PromptData(source=Arithmetic(num_train=20, num_held_out=4)))
    finally:
        module.close()
    values = trainer.callback_metrics
    weights = {name: value.detach().clone() for name, value in module.policy.named_parameters()}
    return weights, float(values["mismatch/max_abs_nats"]), float(values["sync/moved_max_nats"])


def train_twice() -> list[tuple[dict[str, Tensor], float, float]]:
    return [train_on_a_rank(tensor_parallel) for tensor_parallel in (1, 2)]


def test_two_ranks_have_an_engine_each_or_share_one() -> None:
    """The process group outlives the engines: `run_ranks` uses it afterwards."""
    each, shared = zip(*run_ranks(2, train_twice), strict=True)
    for (first, mismatch, moved), (second, *_) in (each, shared):
        assert mismatch < TOLERANCE and moved > 100 * TOLERANCE
        assert all(torch.equal(value, second[name]) for name, value in first.items())


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
