"""Whole runs that sample from real vLLM servers on CPUs, started by the run or by `delta-lightning serve`; one rank and two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import delta_lightning.strategies  # noqa: F401 -- makes fsdp2 known
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.samplers.servers.client import Client, ServerError
from delta_lightning.samplers.servers.launch import free_port
from delta_lightning.types import SamplingParams
from support.cli import Invoke, invoke  # noqa: F401 - a fixture
from support.vllm_runs import (
    TOLERANCE,
    metrics,
    module_with,
    ranks_agree,
    sampled_what_it_scored,
    train_on_two_ranks,
)
from support.weight_server import until
from support.world import run_ranks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
SHAPE = ("hidden_size=64", "heads=2", "kv_heads=1", "layers=2", "context=128", "sliding_window=8")
RUN = ("--model.optimizer.lr=0.01", "--model.sampling.max_new_tokens=24", "--model.sampling.temperature=0.8",
       "--model.sampling.top_p=0.9", "--trainer.check_val_every_n_epoch=1", "--trainer.max_epochs=3",
       "--model.verifier=support.odd.OddSum")  # fmt: skip


def answers(url: str) -> bool:
    try:
        Client(url, timeout=5.0).get("/health")
    except ServerError:
        return False
    return True


@contextmanager
def serve(family: str, *options: str) -> Iterator[str]:
    """The address of a server that the command line runs."""
    port = free_port()
    url, shape = f"http://127.0.0.1:{port}", [f"--model.backbone.{option}" for option in SHAPE]
    command = [sys.executable, "-m", "delta_lightning", "serve", f"--port={port}", "--host=127.0.0.1", "--backbone=Tiny",
               f"--backbone.family={family}", *shape, "--sampler=VLLMServerSampler", "--sampler.start=1",
               "--sampler.cache_gib=0.125", "--sampler.max_sequences=64", *options]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: process.poll() is not None or answers(url), 400)
        assert process.poll() is None
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM and not answers(url)
    assert "--max-num-seqs=64" in said and "ready after" in said and url in said


def check_ahead(folder: Path) -> None:
    """Each step but the first trained on completions of the weights before, and the servers had the weights of now."""
    steps = [row for row in metrics(folder) if row.get("rollout/staleness_steps")]
    assert [float(row["rollout/staleness_steps"]) for row in steps] == [0, 1, 1]
    assert float(steps[0]["mismatch/max_abs_nats"]) < TOLERANCE
    assert all(float(row["mismatch/max_abs_nats"]) > 100 * TOLERANCE for row in steps[1:])
    assert all(float(row["sync/probe_max_nats"]) < TOLERANCE for row in steps)


def test_a_run_starts_its_server_and_samples_what_it_scores(
    invoke: Invoke,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not in tmp_path: vLLM makes sockets there, whose names must be short.
    with tempfile.TemporaryDirectory(prefix="delta_lightning_test_") as place, monkeypatch.context() as here:
        here.setenv("TMPDIR", place)
        here.setattr(tempfile, "tempdir", place)
        outcome = invoke(
            "--model.sampler=VLLMServerSampler", "--model.sampler.start=1", "--model.sampler.cache_gib=0.125",
            "--model.sampler.max_sequences=64", *(f"--model.backbone.{option}" for option in SHAPE), *RUN,
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert "answers after" in outcome.err
        sampled_what_it_scored(tmp_path / "run", 3)
        assert not [name for name in os.listdir(place) if name.startswith("delta_lightning_server")]


def test_a_run_samples_from_a_server_of_the_command_line(invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "weights").mkdir()
    way = ("--sampler.transfer=FolderTransfer", f"--sampler.transfer.path={tmp_path / 'weights'}")
    with serve("olmo3", *way) as url:
        run = (
            "--model.sampler=VLLMServerSampler", f"--model.sampler.servers=['{url}']", "--model.backbone.family=olmo3",
            *(option.replace("--sampler", "--model.sampler") for option in way),
            *(f"--model.backbone.{option}" for option in SHAPE), *RUN,
        )  # fmt: skip
        outcome = invoke(*run)
        assert outcome.code == 0, outcome.err
        sampled_what_it_scored(tmp_path / "run", 3)
        assert answers(url), "it is not the run's to stop"
        outcome = invoke(*run, "--model.one_step_off=true", f"--run_dir={tmp_path / 'ahead'}")
        assert outcome.code == 0, outcome.err
        check_ahead(tmp_path / "ahead")
    assert os.listdir(tmp_path / "weights") == []


def train_on_a_rank(url: str, family: str, strategy: str) -> Any:
    backbone = Tiny(family=family, hidden_size=64, heads=2, kv_heads=1, layers=2, context=128, sliding_window=8, seed=0)  # type: ignore[arg-type]
    module = module_with(VLLMServerSampler(servers=[url]), backbone, SamplingParams(max_new_tokens=8, top_k=40))
    return train_on_two_ranks(module, strategy=strategy, steps=3, prompts=40)


@pytest.mark.parametrize(("family", "strategies"), [("qwen3", ("ddp", "fsdp2")), ("olmo3", ("fsdp2",))])
def test_two_ranks_replicated_and_sharded_share_a_server(family: str, strategies: tuple[str, ...]) -> None:
    with serve(family) as url:
        for strategy in strategies:
            ranks_agree(run_ranks(2, train_on_a_rank, url, family, strategy), steps=3)
