"""A session of `VLLMSampler` over an engine that only takes notes: sleep around updates, dtypes, what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.interfaces import SamplerContext
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import VLLMSampler, vllm_engine, vllm_version
from delta_lightning.samplers.vllm import VLLMSession
from delta_lightning.types import Prompt, SamplingParams
from support.models import NumberTokenizer
from support.sampling import context


class Notes:
    """An engine that only writes down what it is told."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.model_config = SimpleNamespace(max_model_len=64, dtype=dtype)
        self.engine_core = self
        self.told: list[Any] = []
        self.weights: dict[str, torch.Tensor] = {}
        self.asleep: set[str] = set()
        self.fails = False

    def sleep(self, level: int) -> None:
        self.told.append(("sleep", level))
        self.asleep = {"weights", "kv_cache"}

    def wake_up(self, tags: list[str]) -> None:
        if self.asleep.issuperset(tags):  # as vLLM's executor does, which otherwise warns and leaves all as it is
            self.told.append(("wake", *tags))
            self.asleep -= set(tags)

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        if self.fails:
            raise ValueError("no such layer")
        self.weights = {name: value.clone() for name, value in kwargs["weights_iterator"]}
        self.told.append(method)

    def reset_prefix_cache(self) -> bool:
        self.told.append("reset_prefix_cache")
        return True

    def shutdown(self) -> None:
        self.told.append("shutdown")


@pytest.fixture(scope="module")
def model() -> Any:
    return Tiny(hidden_size=32, heads=2, kv_heads=2, layers=1, context=64).load(LoadContext())


def session_on_a_gpu(
    model: Any, monkeypatch: pytest.MonkeyPatch, *, sleep: bool, dtype: torch.dtype = torch.float32
) -> tuple[VLLMSession, Notes]:
    engine = Notes(dtype)
    monkeypatch.setattr(vllm_engine, "start_engine", lambda options, context: engine)
    there = SamplerContext(model=model, tokenizer=NumberTokenizer(), device=torch.device("cuda"))
    session = VLLMSession(VLLMSampler(sleep=sleep), there)
    engine.told.clear()
    return session, engine


UPDATE = ["reload_weights", "reset_prefix_cache"]


def test_weights_come_back_before_the_cache_and_neither_before_the_update(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session, engine = session_on_a_gpu(model, monkeypatch, sleep=True)
    session.update_weights(1, model.named_parameters())
    assert engine.told == UPDATE, "an engine that is awake stays so: the first update comes right after the start"
    for version in (2, 3):
        engine.told.clear()
        session.rest()
        session.rest()  # an evaluation may have ended just before
        assert engine.told == [("sleep", 2)]
        receipt = session.update_weights(version, model.named_parameters())
        assert engine.told[1:] == [("wake", "weights"), "reload_weights", ("wake", "kv_cache"), "reset_prefix_cache"]
        assert receipt.version == version and engine.weights.keys() > {name for name, _ in model.named_parameters()}
    engine.told.clear()
    session.update_weights(4, model.named_parameters())
    assert engine.told == UPDATE, "awake again"


def test_a_sleeping_engine_neither_samples_nor_scores(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session, engine = session_on_a_gpu(model, monkeypatch, sleep=True)
    session.rest()
    prompt = Prompt(id="p", text="", token_ids=(2, 3), source="", reference={})
    with pytest.raises(RunError, match="vLLM cannot be sampled while it sleeps: its weights must be updated first"):
        session.generate([prompt], num_completions=1, params=SamplingParams(), seed=0)
    with pytest.raises(RunError, match="vLLM cannot be scored while it sleeps"):
        session.logprobs([[2, 3]])
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.update_weights(1, model.named_parameters())
    assert engine.told == [("sleep", 2), ("wake", "weights"), ("wake", "kv_cache"), "shutdown"]


def test_after_an_update_that_failed_half_awake_nothing_sleeps_at_the_end(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session, engine = session_on_a_gpu(model, monkeypatch, sleep=True)
    session.rest()
    engine.fails = True
    with pytest.raises(RunError, match="could not load the weights of version 1: ValueError: no such layer"):
        session.update_weights(1, model.named_parameters())
    assert engine.asleep == {"kv_cache"}
    session.close()
    assert not engine.asleep and engine.told[-1] == "shutdown"


def test_without_the_option_it_never_sleeps(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session, engine = session_on_a_gpu(model, monkeypatch, sleep=False)
    session.rest()
    session.update_weights(1, model.named_parameters())
    assert engine.told == UPDATE


def test_weights_reach_the_engine_in_its_dtype(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session, engine = session_on_a_gpu(model, monkeypatch, sleep=False, dtype=torch.bfloat16)
    receipt = session.update_weights(1, model.named_parameters())
    assert {value.dtype for value in engine.weights.values()} == {torch.bfloat16}
    assert receipt.num_bytes == sum(4 * value.numel() for value in model.parameters()), "counted as they were sent"
    for name, value in model.named_parameters():
        assert torch.equal(engine.weights[name], value.detach().to(torch.bfloat16))


def test_tokens_that_the_model_does_not_know_are_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = session_on_a_gpu(model, monkeypatch, sleep=False)
    prompt = Prompt(id="odd", text="", token_ids=(2, 10_000), source="", reference={})
    with pytest.raises(ConfigError, match="prompt odd: wanted token"):
        session.generate([prompt], num_completions=1, params=SamplingParams(), seed=0)


def test_a_probe_longer_than_the_engines_context_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = session_on_a_gpu(model, monkeypatch, sleep=False)
    with pytest.raises(
        ConfigError, match=r"model\.sampler\.context: wanted room for the 64 tokens of a probe and one more, got 64"
    ):
        session.logprobs([[2] * 20, [2] * 64])


def test_sleep_on_cpus_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_version, "version", lambda name: "0.32.0")
    with pytest.raises(ConfigError, match=r"model\.sampler\.sleep: wanted a GPU, whose memory it frees, got 'cpu'"):
        VLLMSampler(sleep=True).open(context(model))
