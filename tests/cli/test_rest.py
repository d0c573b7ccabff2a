"""A run tells its sampler when nothing will be sampled before the next update of weights, and keeps to it."""

from __future__ import annotations

import itertools

import pytest

from support import resting
from support.cli import Invoke, invoke  # noqa: F401 - a fixture


def test_the_sampler_rests_from_the_end_of_sampling_to_the_next_update(
    invoke: Invoke,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resting, "CALLS", [])
    outcome = invoke(
        "--model.sampler=support.resting.Resting", "--model.verifier=support.odd.OddSum", "--trainer.max_epochs=3",
        "--data.source.num_held_out=9", "--model.refill_rounds=2", "--model.filters+=ZeroVariance",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    phases = [name for name, _ in itertools.groupby(resting.CALLS)]
    assert phases == ["update", "generate", "rest"] * (len(phases) // 3)
    assert phases.count("rest") >= 5, "three steps, and evaluations before and after them"
    assert resting.CALLS.count("generate") > phases.count("generate"), "no phase with several calls: nothing was refilled"
