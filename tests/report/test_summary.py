"""The summary's numbers, worked by hand."""

from __future__ import annotations

import pytest

from delta_lightning.report.summary import summarise, summary_table

TIMES = {"seconds/sample": 1.0}
HISTORY = [
    {"step": 1, "reward/mean": 0.2, "rollout/accuracy": 0.2, "rollout/completion_tokens": 10.0, "seconds/step": 4.0} | TIMES,
    {"step": 2, "reward/mean": 0.4, "rollout/accuracy": 0.5, "rollout/completion_tokens": 30.0, "seconds/step": 2.0} | TIMES,
]
HELD_OUT = [{"step": 0, "held_out/accuracy": 0.1}, {"step": 1, "held_out/accuracy": 0.9}, {"step": 2, "held_out/accuracy": 0.3}]


def test_numbers() -> None:
    summary = summarise(HISTORY, HELD_OUT, sequences_per_step=6, phases=("sample", "verify"))
    assert summary["held_out_accuracy"] == {"before": 0.1, "before_step": 0, "after": 0.3, "after_step": 2}
    assert summary["first_and_last"]["rollout/completion_tokens"] == [10.0, 30.0]
    assert summary["seconds_per_step"] == 3.0 and summary["seconds_per_phase"] == {"sample": 1.0}
    # 6 sequences of 10, then 6 of 30 tokens: 240 tokens in 2 s of sampling and 6 s in all; not the mean of two rates
    assert summary["tokens_per_second"] == {"sampled": pytest.approx(120.0), "step": pytest.approx(40.0)}


def test_sampling_ahead_counts_as_sampling() -> None:
    """The second step was sampled in 2 s beside the first, and half a second of it was sampled again."""
    ahead = [HISTORY[0], HISTORY[1] | {"seconds/sample": 0.5, "seconds/ahead_sample": 2.0}]
    rates = summarise(ahead, [], sequences_per_step=6, phases=("sample",))["tokens_per_second"]
    assert rates == {"sampled": pytest.approx(240 / 3.5), "step": pytest.approx(40.0)}


def test_a_run_without_evaluations_or_times() -> None:
    summary = summarise([{"step": 1}], [], sequences_per_step=6, phases=("sample",))
    assert summary["held_out_accuracy"] is None and summary["tokens_per_second"] == {"sampled": None, "step": None}
    assert summary["first_and_last"]["reward/mean"] is None
    assert "held-out" not in summary_table(summary)


def test_the_table_shows_shares_that_add_up() -> None:
    table = summary_table(summarise(HISTORY, HELD_OUT, sequences_per_step=6, phases=("sample",)))
    assert "held-out accuracy" in table and "0.100" in table and "0.300" in table and "0.900" not in table
    lines = {line.split("  ")[1]: line.split() for line in table.splitlines() if line.strip()}
    assert lines["sample"][-2:] == ["33.3", "%"] and lines["other"][-2:] == ["66.7", "%"]
