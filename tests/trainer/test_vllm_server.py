"""Whole runs that sample from doubles of vLLM servers: what is sampled is what is scored, faults stop the run by name."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.multiprocessing as mp

from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.types import SamplingParams
from support.cli import Invoke, Outcome, invoke, loads  # noqa: F401 - fixtures
from support.generate_server import Nursery, Running, nursery
from support.models import NumberTokenizer, tiny_model
from support.vllm_runs import module_with, ranks_agree, sampled_what_it_scored, train_on_two_ranks
from support.world import run_ranks

LIMITS = ("--model.sampler.silence_seconds=2", "--model.sampler.answer_seconds=3", "--model.sampler.update_seconds=20")


@pytest.fixture(scope="module")
def serve() -> Iterator[Nursery]:
    with nursery() as started:
        yield started


def double(serve: Nursery, family: str = "qwen3", **settings: Any) -> Running:
    """A server of the model that `--model.backbone=Tiny` trains."""
    return serve(Tiny(family=family).load(LoadContext()), byte_tokenizer(), **settings)  # type: ignore[arg-type]


def train_on(invoke: Invoke, *servers: Running, args: tuple[str, ...] = ()) -> Outcome:  # noqa: F811
    urls = ",".join(one.url for one in servers)
    return invoke(
        "--model.sampler=VLLMServerSampler", f"--model.sampler.servers=[{urls}]", *LIMITS, "--model.optimizer.lr=0.01",
        "--trainer.max_epochs=2", "--model.verifier=support.odd.OddSum", *args,
    )  # fmt: skip


@pytest.mark.parametrize(("family", "adapter"), [("qwen3", ()), ("olmo3", ("--model.adapter=LoRA",))])
def test_a_run_samples_what_the_trainer_scores(
    serve: Nursery,
    invoke: Invoke,  # noqa: F811
    tmp_path: Path,
    family: str,
    adapter: tuple[str, ...],
) -> None:
    servers = [double(serve, family), double(serve, family)]
    outcome = train_on(invoke, *servers, args=(
        f"--model.backbone.family={family}", *adapter, "--model.sampling.top_p=0.9", "--model.sampling.temperature=0.8",
        "--trainer.check_val_every_n_epoch=1",
    ))  # fmt: skip
    assert outcome.code == 0, outcome.err
    sampled_what_it_scored(tmp_path / "run", 2)
    for one in servers:
        assert f"sampler: vLLM 0.32.0 at {one.url}" in outcome.err
        assert one.stats()["served"] > 0 and one.stats()["running"] == 0
        one.signal(signal.SIGKILL)


FAULTS = {
    "a server killed while it samples": (
        {"fault": "die", "after": 10},
        "no vLLM server is left: .*reset by peer|without an answer",
    ),
    "a server that hangs": ({"fault": "hang", "after": 10}, "no vLLM server is left: .* it hangs: "),
    "weights that are stale": ({"fault": "stale", "updates": 2}, "after the update to version 1 .* still serves stale weights"),
    "half of the parameters": ({"fault": "half", "updates": 2}, "did not arrive, or arrived in another's place"),
    "another dtype": ({"dtype": "bfloat16"}, "looks like another dtype"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_the_run_with_its_name(serve: Nursery, invoke: Invoke, name: str) -> None:  # noqa: F811
    settings, message = FAULTS[name]
    bad = double(serve, **settings)
    outcome = train_on(invoke, bad)
    bad.signal(signal.SIGKILL)
    assert outcome.code == 1
    assert re.search(message, outcome.err), outcome.err
    assert bad.url in outcome.err and "Traceback" not in outcome.err


def test_a_server_that_dies_costs_nothing_but_its_work(serve: Nursery, invoke: Invoke) -> None:  # noqa: F811
    servers = [double(serve, fault="die", after=6), double(serve)]
    outcome = train_on(invoke, *servers)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("is lost: ") == 1 and f"vLLM server {servers[0].url} is lost" in outcome.err
    servers[1].signal(signal.SIGKILL)


def test_what_is_no_server_of_ours_is_refused_before_anything_loads(
    serve: Nursery,
    invoke: Invoke,  # noqa: F811
    loads: list[str],  # noqa: F811
) -> None:
    shop, gone = (serve(tiny_model(), NumberTokenizer(), fault=fault) for fault in ("not vllm", ""))
    gone.signal(signal.SIGKILL)
    for server, message in ((shop, "something else, which answered"), (gone, "Connection refused")):
        outcome = train_on(invoke, server)
        assert outcome.code == 2 and message in outcome.err and server.url in outcome.err
    assert loads == []
    shop.signal(signal.SIGKILL)


# Several ranks -------------------------------------------------------------------------------------------------------


def train_on_a_rank(url: str, dies: bool = False) -> Any:
    sampler = VLLMServerSampler(servers=[url], update_seconds=20, answer_seconds=5)
    module = module_with(sampler, Tiny(seed=0), SamplingParams(max_new_tokens=8))
    if dies and os.environ["LOCAL_RANK"] == "1":
        module._inspect = lambda completion: os._exit(7)  # type: ignore[method-assign,assignment]
    return train_on_two_ranks(module)


def test_two_ranks_sample_from_one_server(serve: Nursery) -> None:
    server = double(serve)
    ranks_agree(run_ranks(2, train_on_a_rank, server.url))
    stats = server.stats()
    assert stats["served"] >= 2 * 8 * 4 and stats["most"] <= 4, "each rank takes half of what the server decodes at a time"
    server.signal(signal.SIGKILL)


def test_a_rank_that_dies_ends_the_run(serve: Nursery) -> None:
    server = double(serve, delay=0.05)
    start = time.monotonic()
    with pytest.raises(mp.ProcessExitedException, match="exit code 7"):
        run_ranks(2, train_on_a_rank, server.url, True)
    assert time.monotonic() - start < 120
    until = time.monotonic() + 5
    while server.stats()["running"] and time.monotonic() < until:
        time.sleep(0.1)
    assert server.stats()["running"] == 0, "what the ranks had asked for was dropped"
    server.signal(signal.SIGKILL)
