"""Out of memory on the command line: what was said, what is left, and that what is advised helps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from delta_lightning.samplers import hf
from delta_lightning.trainer import evaluating, module
from support.cli import Invoke
from support.room import room

LONGER = ("--trainer.max_epochs=2", "--model.sampling.max_new_tokens=8")


def test_scoring_runs_out_in_the_second_step(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.make_experience

    def crowded(step: int, *args: object, **options: object) -> object:
        with room(30 if step else 1000):
            return original(step, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "make_experience", crowded)
    ended = invoke(*LONGER)
    assert ended.code == 1 and "Traceback" not in ended.err
    assert ended.err.count("trying once more") == 1
    assert "error: out of memory while scoring, in micro-batches of up to" in ended.err
    assert (tmp_path / "run" / "checkpoints" / "step-1.ckpt").exists(), "the last checkpoint stays"
    advised = re.search(r"Set (--model.tokens_per_micro_batch=\d+) or less", ended.err)
    assert advised is not None
    more = invoke(*LONGER, advised[1], "--ckpt_path", str(tmp_path / "run" / "checkpoints" / "step-1.ckpt"))
    assert more.code == 0, more.err


def test_an_update_runs_out(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    monkeypatch.setattr(module, "micro_batch_loss", full)
    ended = invoke()
    assert ended.code == 1 and "Traceback" not in ended.err
    said = "error: out of memory while loading, sampling, assigning credit or updating, in micro-batches of up to"
    assert said in ended.err and "Tried to allocate 9.00 GiB" in ended.err
    assert "Set --model.tokens_per_micro_batch=" in ended.err


def test_an_evaluation_runs_out(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before training begins: no micro-batch has been scored."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    monkeypatch.setattr(evaluating, "collect", full)
    ended = invoke()
    assert ended.code == 1 and "Traceback" not in ended.err
    assert "error: out of memory while loading, sampling, assigning credit or updating (CUDA out of memory" in ended.err
    assert "Try --model.activation_checkpointing=true" in ended.err


def test_sampling_runs_out(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """What helps is not the size of micro-batches."""

    def full(*_: object, **__: object) -> Iterator[None]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        yield

    monkeypatch.setattr(hf.HFSession, "_decoded", full)
    ended = invoke()
    assert ended.code == 1 and "Traceback" not in ended.err
    said = "error: out of memory while sampling (CUDA out of memory. Tried to allocate 9.00 GiB.). With HFSampler set a smaller"
    assert said in ended.err and "micro" not in ended.err[ended.err.index(said) :]
