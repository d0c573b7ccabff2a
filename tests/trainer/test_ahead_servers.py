"""One step off with engines that really are processes of their own: doubles of vLLM servers, over HTTP."""

from __future__ import annotations

import csv
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.tokenizer import byte_tokenizer
from support.cli import Invoke, Outcome, invoke  # noqa: F401 - a fixture
from support.generate_server import Nursery, Running, nursery

BEFORE, STEP = 4, 8  # completions of the evaluation before training, and of a rollout step


@pytest.fixture(scope="module")
def serve() -> Iterator[Nursery]:
    with nursery() as started:
        yield started


def run(invoke: Invoke, server: Running, *args: str) -> Outcome:  # noqa: F811
    outcome = invoke(
        "--model.sampler=VLLMServerSampler", f"--model.sampler.servers=[{server.url}]", "--model.sampler.silence_seconds=4",
        "--model.sampler.answer_seconds=10", "--model.sampler.update_seconds=20", "--model.one_step_off=true",
        "--model.optimizer.lr=0.01", "--trainer.max_epochs=3", "--model.verifier=support.odd.OddSum", *args,
    )  # fmt: skip
    server.signal(signal.SIGKILL)
    return outcome


def double(serve: Nursery, **settings: object) -> Running:
    return serve(Tiny().load(LoadContext()), byte_tokenizer(), **settings)  # type: ignore[arg-type]


def test_each_step_but_the_first_is_one_off(serve: Nursery, invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    outcome = run(invoke, double(serve), "--trainer.check_val_every_n_epoch=2")
    assert outcome.code == 0, outcome.err
    assert "one_step_off: completions are sampled with the weights of the step before, and no correction is set" in outcome.err
    [file] = (tmp_path / "run").rglob("metrics.csv")
    with file.open() as lines:
        steps = [row for row in csv.DictReader(lines) if row.get("rollout/staleness_steps")]
    assert [float(row["rollout/staleness_steps"]) for row in steps] == [0, 1, 1]
    mismatch = [float(row["mismatch/mean_abs_nats"]) for row in steps]
    assert mismatch[0] < 1e-4 and min(mismatch[1:]) > 1e-3
    assert all(float(row["sync/probe_max_nats"]) < 1e-4 for row in steps), "the servers have the weights of now"


@pytest.mark.parametrize("fault", ["die", "hang"])
def test_a_server_that_fails_in_the_background_ends_the_run(serve: Nursery, invoke: Invoke, fault: str) -> None:  # noqa: F811
    server = double(serve, fault=fault, after=BEFORE + STEP + 3)
    outcome = run(invoke, server)
    assert outcome.code == 1 and "Traceback" not in outcome.err
    assert re.search(r"error: sampling rollout step 2 ahead: no vLLM server is left: ", outcome.err), outcome.err
    assert server.url in outcome.err
