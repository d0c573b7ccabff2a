"""The picture is drawn from any subset of the metrics, and shows every step that it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from delta_lightning.report.curves import draw_curves, series

ROW = {
    "reward/mean": 0.4, "rollout/accuracy": 0.3, "rollout/completion_tokens": 30.0, "rollout/completion_tokens_max": 50.0,
    "rollout/truncated_share": 0.1, "seconds/sample": 1.0, "seconds/update": 2.0, "credit/mean": 1.0, "credit/std": 0.1,
    "credit/min": 0.8, "credit/max": 1.2, "update/grad_norm": 0.5, "update/kl_nats": 0.0, "mismatch/max_abs_nats": 1e-5,
    "rollout/entropy_nats": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("missing", [None, *ROW])
def test_draws_whatever_is_there(missing: str | None, tmp_path: Path) -> None:
    rows = [{"step": float(step)} | {name: value for name, value in ROW.items() if name != missing} for step in (1, 2)]
    draw_curves(rows, [{"step": 0.0, "held_out/accuracy": 0.2}], tmp_path / "c.png", title="run")
    assert (tmp_path / "c.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_draws_a_run_of_nothing(tmp_path: Path) -> None:
    draw_curves([], [], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_a_series_skips_rows_without_the_metric() -> None:
    assert series([{"step": 1, "a": 5.0}, {"step": 2}, {"step": 3, "a": 7.0}], "a") == ([1, 3], [5.0, 7.0])
