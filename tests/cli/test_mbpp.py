"""Code end to end: real rows, the tiny model, programs in the sandbox."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from tests.cli.test_configs import ROOT, TWO_STEPS

from support.cli import Invoke


@pytest.mark.data
def test_two_steps_on_mbpp(invoke: Invoke, delta_data: Path, tmp_path: Path) -> None:
    path = ROOT / "configs" / "experiment" / "mbpp.yaml"
    done = invoke(
        "fit", f"--config={path}", f"--data.path={delta_data / 'mbpp'}", f"--run_dir={tmp_path / 'run'}", *TWO_STEPS,
        "--model.verifier.programs=WholeText", small=False,
    )  # fmt: skip
    assert done.code == 0, done.err
    with (tmp_path / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(math.isfinite(float(value)) for row in rows for value in row.values() if value)
    steps = [row for row in rows if row["verdict/incorrect_share"]]
    # What the tiny model writes is no Python, and all of it was run as a program.
    assert [float(row["verdict/incorrect_share"]) for row in steps] == [1.0, 1.0]
    assert [float(row["verdict/passed_share"]) for row in steps] == [0.0, 0.0]
    assert "sandbox" in (done.out + done.err).lower()
