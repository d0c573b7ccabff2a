"""The `evaluate` library loads our metric from its path, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delta_lightning.verifiers.code import CODE_EVAL

ADD = "def add(a, b): return a + b"


@pytest.fixture
def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    evaluate = pytest.importorskip("evaluate", reason="pip install 'delta-lightning[eval]'")
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_OFFLINE", True)
    return evaluate.load(CODE_EVAL, cache_dir=str(tmp_path))


def test_the_interface_of_code_eval(metric: Any, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    programs = [
        [ADD, "def add(a, b): return a * b", f"open({str(marker)!r}, 'w')\n{ADD}", "while True: pass"],
        ["def sub(a, b): return a - b", "def sub(a, b): return b - a", "def sub(", "import os\nos._exit(0)"],
    ]
    tests = ["assert add(2, 3) == 5", "def check(f):\n    assert f(5, 2) == 3\ncheck(sub)"]
    pass_at_k, results = metric.compute(references=tests, predictions=programs, k=[1, 2, 10], num_workers=2, timeout=1.5)
    passed = {task: [row["passed"] for _, row in rows] for task, rows in results.items()}
    assert passed == {0: [True, False, False, False], 1: [True, False, False, False]}
    assert results[0][3][1]["result"] == "timed out" and results[0][0][1]["result"] == "passed"
    assert pass_at_k == {"pass@1": 0.25, "pass@2": 0.5}
    assert not marker.exists()


def test_tests_that_do_not_compile_are_no_wrong_program(metric: Any) -> None:
    with pytest.raises(ValueError, match="reference 0"):
        metric.compute(references=["assert ("], predictions=[[ADD]], k=[1])
