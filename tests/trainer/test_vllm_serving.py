"""Whole runs that sample from real vLLM servers on CPUs, started by the run or by `delta-lightning serve`; one rank and two."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

import delta_lightning.strategies  # noqa: F401 -- makes fsdp2 known
from delta_lightning.advantages import GroupStandardised
from delta_lightning.corrections import NoCorrection
from delta_lightning.credit import Delta
from delta_lightning.data.arithmetic import Arithmetic
from delta_lightning.losses import ClippedSurrogate, Constant, TokenMean
from delta_lightning.models.sharding import full
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.samplers.servers.client import Client, ServerError
from delta_lightning.samplers.servers.launch import free_port
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.types import SamplingParams
from support.cli import Invoke, invoke  # noqa: F401 - a fixture
from support.odd import OddSum
from support.weight_server import until
from support.world import run_ranks

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
TOLERANCE = 1e-4  # nats, float32
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


def metrics(folder: Path) -> list[dict[str, str]]:
    [file] = folder.rglob("metrics.csv")
    with file.open() as lines:
        return list(csv.DictReader(lines))


def check_ahead(folder: Path) -> None:
    """Each step but the first trained on completions of the weights before, and the servers had the weights of now."""
    steps = [row for row in metrics(folder) if row.get("rollout/staleness_steps")]
    assert [float(row["rollout/staleness_steps"]) for row in steps] == [0, 1, 1]
    assert float(steps[0]["mismatch/max_abs_nats"]) < TOLERANCE
    assert all(float(row["mismatch/max_abs_nats"]) > 100 * TOLERANCE for row in steps[1:])
    assert all(float(row["sync/probe_max_nats"]) < TOLERANCE for row in steps)


def check(folder: Path) -> None:
    """The run sampled what it scored, with weights that moved."""
    rows = metrics(folder)
    steps = [row for row in rows if row.get("mismatch/max_abs_nats")]
    assert len(steps) == 3
    for row in steps:
        assert float(row["mismatch/max_abs_nats"]) < TOLERANCE and float(row["sync/probe_max_nats"]) < TOLERANCE
    assert all(float(row["sync/moved_max_nats"]) > 100 * TOLERANCE for row in steps[1:]), "or agreement shows nothing"
    assert [row for row in rows if row.get("held_out/accuracy")]


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
        check(tmp_path / "run")
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
        check(tmp_path / "run")
        assert answers(url), "it is not the run's to stop"
        outcome = invoke(*run, "--model.one_step_off=true", f"--run_dir={tmp_path / 'ahead'}")
        assert outcome.code == 0, outcome.err
        check_ahead(tmp_path / "ahead")
    assert os.listdir(tmp_path / "weights") == []


class Steps(pl.Callback):
    """What was logged of each rollout step: mismatch, the probe after the update before it, and how far the probe had moved."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = trainer.callback_metrics
        mismatch, probe = float(values["mismatch/max_abs_nats"]), float(values["sync/probe_max_nats"])
        self.rows.append((mismatch, probe, float(values.get("sync/moved_max_nats", 0.0))))


def train_on_a_rank(url: str, family: str, strategy: str) -> tuple[dict[str, Tensor], list[tuple[float, float, float]]]:
    """Parameters after three rollout steps, and what `Steps` saw of each."""
    module = PolicyModule(
        backbone=Tiny(family=family, hidden_size=64, heads=2, kv_heads=1, layers=2, context=128, sliding_window=8, seed=0),  # type: ignore[arg-type]
        sampler=VLLMServerSampler(servers=[url]), verifier=OddSum(), advantage=GroupStandardised(),
        credit=Delta(), loss=ClippedSurrogate(), weighting=Constant(), reduction=TokenMean(), correction=NoCorrection(),
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3), sampling=SamplingParams(max_new_tokens=8, top_k=40),
        prompts_per_step=8, completions_per_prompt=4, updates_per_step=2, micro_batches=1,
    )  # fmt: skip
    steps = Steps()
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_epochs=3, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, callbacks=[steps],
    )  # fmt: skip
    try:
        trainer.fit(module, PromptData(source=Arithmetic(num_train=40, num_held_out=4)))
    finally:
        module.close()
    return {name: full(value).clone() for name, value in module.policy.named_parameters()}, steps.rows


@pytest.mark.parametrize(("family", "strategies"), [("qwen3", ("ddp", "fsdp2")), ("olmo3", ("fsdp2",))])
def test_two_ranks_replicated_and_sharded_share_a_server(family: str, strategies: tuple[str, ...]) -> None:
    with serve(family) as url:
        for strategy in strategies:
            (first, steps), (second, _) = run_ranks(2, train_on_a_rank, url, family, strategy)
            assert len(steps) == 3, strategy
            assert all(mismatch < TOLERANCE and probe < TOLERANCE for mismatch, probe, _ in steps), (strategy, steps)
            assert all(moved > 100 * TOLERANCE for _, _, moved in steps[1:]), (strategy, steps)
            assert all(torch.equal(value, second[name]) for name, value in first.items()), strategy
