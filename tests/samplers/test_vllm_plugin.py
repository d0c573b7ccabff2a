"""Real vLLM servers on CPUs, fed over HTTP and through a folder: they sample what the trainer scores."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from delta_lightning.errors import ConfigError
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.samplers.servers.transfers import FolderTransfer, HTTPTransfer, WeightTransfer
from delta_lightning.samplers.servers.transfers.wire import END, frame
from delta_lightning.samplers.vllm_heads import CPU_HEADS
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.weight_check import WeightCheck, WeightProof
from delta_lightning.types import SamplingParams
from support.prompts import number_prompts, train
from support.sampling import context, largest_gap, sample, shift
from support.sampling import wide_prompts as prompts
from support.weight_server import until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
TOLERANCE = 1e-4  # nats, float32


@pytest.fixture(scope="module", params=["qwen3", "olmo3"])
def served(request: pytest.FixtureRequest) -> Iterator[SimpleNamespace]:
    """A tiny model and its servers: Qwen3 on two of them over HTTP, Olmo3 on one through a folder."""
    family = request.param
    model = Tiny(family=family, hidden_size=64, heads=2, kv_heads=1, layers=2, context=128, sliding_window=8).load(
        LoadContext()
    )
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        transfer: WeightTransfer = HTTPTransfer() if family == "qwen3" else FolderTransfer(path=folder)
        count = 2 if family == "qwen3" else 1
        sampler = VLLMServerSampler(start=count, transfer=transfer, cache_gib=0.125, max_sequences=64, silence_seconds=60)
        environment = dict(os.environ)
        session: Any = sampler.open(context(model, say=said.append))
        assert dict(os.environ) == environment
        yield SimpleNamespace(model=model, session=session, family=family, said=said, folder=folder)
        handles = list(session._handles)
        session.close()
        assert not any(handle.alive() for handle in handles)
        assert os.listdir(folder) == []


def test_weights_arrive_and_stale_ones_are_seen(served: SimpleNamespace) -> None:
    given = prompts([3, 7, 1, 12, 30])
    for version in (5, 6):
        shift(served.model)
        assert largest_gap(served.model, given, sample(served.session, given, 2)) > 0.05, "stale: the change must show"
        receipt = served.session.update_weights(version, served.model.named_parameters())
        sizes = [value.numel() * 4 for value in served.model.parameters()]
        assert (receipt.version, receipt.num_tensors, receipt.num_bytes) == (version, len(sizes), sum(sizes))
        done = sample(served.session, given, 2)
        assert largest_gap(served.model, given, done) < TOLERANCE
        assert {c.version for c in done.values()} == {version}


@pytest.mark.parametrize(
    "params",
    [{"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.8, "top_k": 50}, {"min_p": 0.5},
     {"bad_token_ids": tuple(range(2, 200)), "temperature": 0.9}],
)  # fmt: skip
def test_logprobs_of_whole_and_cut_distributions_are_those_of_the_model(
    served: SimpleNamespace, params: dict[str, Any]
) -> None:
    given = prompts([3, 7, 1, 12])
    done = sample(served.session, given, 3, **params)
    assert largest_gap(served.model, given, done, params.get("temperature", 1.0)) < TOLERANCE
    for c in done.values():
        assert not set(c.token_ids) & set(params.get("bad_token_ids", ()))
        if params.keys() == {"temperature"}:
            assert list(c.logprobs) == list(c.raw_logprobs)
        else:  # mass was cut away, so what is left is more probable
            assert all(a > b for a, b in zip(c.logprobs, c.raw_logprobs, strict=True))


def test_stop_strings_end_a_completion_with_the_token_that_completes_them(served: SimpleNamespace) -> None:
    given, eos = prompts([3, 7, 5]), served.model.config.eos_token_id
    free = sample(served.session, given, 4, bad_token_ids=(eos,), max_new_tokens=30)
    wanted = " ".join(str(token) for token in list(free["p1", 2].token_ids)[4:6])  # NumberTokenizer writes numbers
    done = sample(served.session, given, 4, bad_token_ids=(eos,), max_new_tokens=30, stop=(wanted,))
    assert done["p1", 2].finish_reason == "stop" and list(done["p1", 2].token_ids) == list(free["p1", 2].token_ids)[:6]
    for completion in done.values():
        assert (wanted in completion.text) == (completion.finish_reason == "stop")
    assert largest_gap(served.model, given, done) < TOLERANCE


def test_the_same_seed_gives_the_same_completions(served: SimpleNamespace) -> None:
    given = prompts([3, 7, 5])
    whole = {key: list(c.token_ids) for key, c in sample(served.session, given, 4).items()}
    assert whole == {key: list(c.token_ids) for key, c in sample(served.session, given[::-1], 4).items()}
    assert len({tuple(ids) for ids in whole.values()}) == len(whole), "completions of a group must differ"


def test_every_server_proves_each_update(served: SimpleNamespace) -> None:
    proof, book = WeightProof(WeightCheck(), number_prompts(), 128), MetricBook()
    for version in range(10, 12):
        proof.deliver(served.session, version, served.model, book)
        proof.probe(served.session, version, served.model, book)
        train(served.model)
    engines = served.session.logprobs_by_engine([[2, 3, 4]])
    assert len(engines) == (2 if served.family == "qwen3" else 1)


def broken_frame(name: str, tensor: Tensor) -> Any:
    """One bit of one tensor changed on its way, behind the checksum that the trainer computed."""
    head, elements = frame(name, tensor)
    if "q_proj" not in name:
        return [head, elements]
    return [head, bytes(elements[:-1]) + bytes([elements[-1] ^ 1])]


def cut_short(name: str, tensor: Tensor) -> Any:
    return [END] if "layers.1" in name else frame(name, tensor)


@pytest.mark.parametrize(
    ("fault", "message"), [(broken_frame, "q_proj.weight arrived with checksum"), (cut_short, "did not ar")]
)
def test_what_does_not_arrive_as_sent_ends_the_run_and_a_whole_update_mends_it(
    served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, fault: Any, message: str
) -> None:
    if served.family != "qwen3":
        pytest.skip("the stream is HTTP's")
    monkeypatch.setattr("delta_lightning.samplers.servers.transfers.http.frame", fault)
    with pytest.raises(Exception, match=f"no vLLM server is left.*{message}"):
        served.session.update_weights(20, served.model.named_parameters())
    monkeypatch.undo()
    served.session.update_weights(21, served.model.named_parameters())
    given = prompts([3, 7])
    assert largest_gap(served.model, given, sample(served.session, given, 2)) < TOLERANCE


def test_a_trainer_that_fails_while_it_sends_leaves_servers_that_a_whole_update_mends(served: SimpleNamespace) -> None:
    def half() -> Iterable[tuple[str, Tensor]]:
        for index, pair in enumerate(served.model.named_parameters()):
            if index == 9:
                raise ValueError("a rank died")
            yield pair

    with pytest.raises(Exception, match="a rank died"):
        served.session.update_weights(30, half())
    served.session.update_weights(31, served.model.named_parameters())
    given = prompts([3, 7])
    assert largest_gap(served.model, given, sample(served.session, given, 2)) < TOLERANCE


def test_the_widths_of_heads_are_vllm_s() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert list(CPU_HEADS) == list(CPUAttentionBackend.get_supported_head_sizes())
    narrow = Tiny(hidden_size=32, heads=4, kv_heads=2, layers=1, context=64).load(LoadContext())
    with pytest.raises(ConfigError, match="width 8"):
        VLLMServerSampler(start=1).open(context(narrow))


def test_a_server_killed_while_it_generates_leaves_the_rest_to_the_other(served: SimpleNamespace) -> None:
    """Last: one of the two servers is gone afterwards."""
    if served.family != "qwen3":
        pytest.skip("it has one server")
    given = prompts([3, 7, 5, 9])
    params = SamplingParams(max_new_tokens=90, bad_token_ids=(served.model.config.eos_token_id,))
    running = served.session.generate(given, num_completions=24, params=params, seed=0)
    done = [next(running)]
    victim = served.session._handles[0]
    [server] = [int(pid) for pid in Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split()]
    os.kill(server, signal.SIGKILL)
    done += list(running)
    assert len({(c.prompt_id, c.sample_index) for c in done}) == len(done) == 96
    assert largest_gap(served.model, given, {(c.prompt_id, c.sample_index): c for c in done}) < TOLERANCE
    until(lambda: not victim.alive(), 30)
    assert victim.exit_code() == 128 + signal.SIGKILL
    assert any(victim.url in line and "is lost" in line for line in served.said)
    receipt = served.session.update_weights(40, served.model.named_parameters())
    assert receipt.version == 40 and len(served.session.logprobs_by_engine([[2, 3]])) == 1
