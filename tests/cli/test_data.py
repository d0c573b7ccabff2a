"""A mixture with weights, one source on disk, and filters: a whole run from YAML, and what is refused before it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from support.cli import Invoke

CONFIG = """
data:
  source:
    class_path: Mixture
    init_args:
      weights: {{sums: 0.25, large: 0.75}}
      sources:
        sums: {{class_path: Arithmetic, init_args: {{digits: 1, num_train: 30, num_held_out: 4}}}}
        large:
          class_path: OnDisk
          init_args:
            cache: {folder}/cache
            table:
              class_path: Table
              init_args:
                path: {folder}/train.jsonl
                held_out_file: test.jsonl
                columns: {{question: question, answer: answer, difficulty: level}}
  filters:
    - {{class_path: PromptLength, init_args: {{max_tokens: 40}}}}
    - {{class_path: Difficulty, init_args: {{low: 1, high: 3, source: large}}}}
    - class_path: Decontaminate
      init_args:
        against:
          exam: {{class_path: Table, init_args: {{path: {folder}/test.jsonl, columns: {{question: question}}}}}}
"""


def rows(first: int, last: int) -> str:
    text = "Say what the sum of these two numbers is:"
    return "".join(
        json.dumps({"question": f"{text} {n}+{n}", "answer": str(2 * n), "level": n % 5}) + "\n" for n in range(first, last)
    )


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    exam = {"question": "A farmer has 101 sheep and buys as many again: how many has he?", "answer": "202", "level": 2}
    copy = exam | {"question": exam["question"].upper()}  # type: ignore[attr-defined]
    (tmp_path / "train.jsonl").write_text(rows(1, 60) + json.dumps(copy) + "\n", encoding="utf-8")
    (tmp_path / "test.jsonl").write_text(json.dumps(exam) + "\n", encoding="utf-8")
    (tmp_path / "run.yaml").write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    return tmp_path / "run.yaml"


SMALL = (
    "--model.backbone=Tiny", "--model.backbone.layers=1", "--model.backbone.hidden_size=32", "--model.prompts_per_step=8",
    "--model.completions_per_prompt=2", "--model.updates_per_step=2", "--model.micro_batches=1", "--report.curves=false",
    "--model.sampling.max_new_tokens=4", "--data.max_prompt_tokens=200", "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
)  # fmt: skip


def test_a_run(invoke: Invoke, config: Path, tmp_path: Path) -> None:
    done = invoke("fit", *SMALL, f"--config={config}", f"--run_dir={tmp_path / 'run'}", small=False)
    assert done.code == 2 and "data large, split train: wanted at least 1 problem among the first 60 rows" in done.err
    text = config.read_text(encoding="utf-8").replace("max_tokens: 40", "max_tokens: 80")
    config.write_text(text, encoding="utf-8")
    done = invoke("fit", *SMALL, f"--config={config}", f"--run_dir={tmp_path / 'run'}", small=False)
    assert done.code == 0, done.err
    with (tmp_path / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        steps = [row for row in csv.DictReader(file) if row["data/share/large"]]
    shares = [(float(row["data/share/large"]), float(row["data/share/sums"])) for row in steps]
    assert len(shares) == 2 and all(sum(pair) == 1 and pair[0] >= 0.5 for pair in shares)
    assert all(0 < float(row["data/left_out_share"]) < 1 for row in steps), "levels 0 and 4 are left out as they are drawn"
    [line] = (tmp_path / "run" / "decontamination.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["id"] == "large/train.jsonl:60" and json.loads(line)["evaluation"] == "exam"
