"""A recording changes nothing, holds what was finished, and is never overwritten."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.samplers import HFSampler, RecordingSampler
from delta_lightning.samplers.tape import calls, tape_path
from delta_lightning.types import SamplingParams
from support.models import tiny_model
from support.sampling import context, open_session, prompts, sample


def test_completions_are_those_of_the_sampler_inside(tmp_path: Path) -> None:
    model, given = tiny_model(vocabulary=8), prompts([3, 5])
    session = RecordingSampler(path=str(tmp_path), sampler=HFSampler(max_rows=3)).open(context(model))
    session.update_weights(2, [])
    recorded = sample(session, given, 4)
    inner = open_session(model, max_rows=3)
    inner.update_weights(2, [])
    assert recorded == sample(inner, given, 4)
    [call] = calls(tape_path(tmp_path, 0))
    assert {(c.prompt_id, c.sample_index): c for c in call.completions()} == recorded
    assert (call.version, call.seed, call.num_completions) == (2, 0, 4)
    assert [value.tolist() for value in session.logprobs([[2, 3]])] == [value.tolist() for value in inner.logprobs([[2, 3]])]
    session.close()


def test_an_interrupted_call_is_left_out(tmp_path: Path) -> None:
    session = RecordingSampler(path=str(tmp_path)).open(context(tiny_model(vocabulary=8)))
    running = session.generate(prompts([3]), num_completions=4, params=SamplingParams(max_new_tokens=9), seed=0)
    next(running)
    running.close()
    sample(session, prompts([3]), 2, seed=5)
    assert [call.seed for call in calls(tape_path(tmp_path, 0))] == [5]


def test_every_rank_has_its_own_file(tmp_path: Path) -> None:
    part = RecordingSampler(path=str(tmp_path))
    for rank in (0, 1):
        part.open(context(tiny_model(vocabulary=8), rank=rank, world_size=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank_0.jsonl.gz", "rank_1.jsonl.gz"]


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    RecordingSampler(path=str(tmp_path)).open(context(tiny_model(vocabulary=8)))
    with pytest.raises(ConfigError, match="never overwritten"):
        RecordingSampler(path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"RecordingSampler\.path"):
        RecordingSampler(path="")


def record(folder: Path, steps: list[int], *, resumed: bool = False) -> None:
    """A process that samples these rollout steps: their number is the seed."""
    session = RecordingSampler(path=str(folder), resumed=resumed).open(context(tiny_model(vocabulary=8)))
    for step in steps:
        session.update_weights(step, [])
        sample(session, prompts([3, 5]), 2, seed=step)
    session.close()


@pytest.mark.parametrize(("first", "second"), [([0, 1, 2, 3], [2, 3, 4]), ([0, 1], [2, 3, 4]), ([0, 1, 2], [0, 1, 2, 3, 4])])
def test_a_resumed_recording_is_that_of_a_run_that_was_never_stopped(
    first: list[int], second: list[int], tmp_path: Path
) -> None:
    """Stopped after, at, and before its first checkpoint; the last call was cut off."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    record(whole, [0, 1, 2, 3, 4])
    record(stopped, first)
    with tape_path(stopped, 0).open("ab") as file:
        file.write(gzip.compress(b'{"version": 9}')[:15])
    record(stopped, second, resumed=True)
    assert tape_path(stopped, 0).read_bytes() == tape_path(whole, 0).read_bytes()


def test_a_recording_goes_on_only_as_it_began(tmp_path: Path) -> None:
    part = RecordingSampler(path=str(tmp_path), resumed=True)
    part.open(context(tiny_model(vocabulary=8), rank=0, world_size=2))
    with pytest.raises(ConfigError, match="wanted a recording with world_size 1, got world_size 2"):
        part.open(context(tiny_model(vocabulary=8)))
