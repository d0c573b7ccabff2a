"""configs/experiment/mixed.yaml: mathematics and code in one batch, on real rows."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from delta_lightning.cli import preflight
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.types import Prompt, Status
from delta_lightning.verifiers.pool import VerifierPool
from support.cli import Invoke
from support.verdicts import completion_of

CONFIG = Path(__file__).parents[2] / "configs" / "experiment" / "mixed.yaml"
SMALL = (
    "--trainer.accelerator=cpu", "--model.prompts_per_step=4", "--model.completions_per_prompt=2", "--model.backbone.layers=1",
    "--model.sampling.max_new_tokens=8", "--data.held_out_prompts=4",
)  # fmt: skip

pytestmark = pytest.mark.data


def test_two_steps_with_the_tiny_model(invoke: Invoke, delta_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    few = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    for source in few["data"]["source"]["init_args"]["sources"].values():
        source["init_args"]["limit"] = 12
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(few), encoding="utf-8")
    done = invoke(
        "fit", f"--config={tmp_path / 'few.yaml'}", f"--data.path={delta_data}", f"--run_dir={run}", "--trainer.max_epochs=2",
        *SMALL, small=False,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "mbpp: " in done.err  # what the sandbox guarantees
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    values = [float(value) for row in rows for value in row.values() if value]
    assert all(math.isfinite(value) for value in values)
    steps = [row for row in rows if row["reward/mean"]]
    assert len(steps) == 2 and all(float(row["verdict/error_share"]) == 0 for row in steps)
    for source in ("gsm8k", "mbpp"):
        assert any(row[f"rollout/accuracy/{source}"] for row in steps), f"no problem of {source} in two steps"


def test_right_and_wrong_answers_of_both_get_their_verdicts(
    invoke: Invoke, delta_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set's own solutions, in the form that the templates ask for, and those of a neighbouring row."""
    built: list[tuple[PolicyModule, PromptData]] = []
    monkeypatch.setattr(preflight, "check_inputs", lambda module, data, *, rank: built.append((module, data)) or exit(0))
    invoke("fit", f"--config={CONFIG}", f"--data.path={delta_data}", f"--run_dir={tmp_path}", *SMALL, small=False)
    (module, data), problems = built[0], built[0][1].source.problems("train")
    programs = {
        f"mbpp/{row['task_id']}": f"```python\n{row['code']}\n```"
        for row in map(json.loads, (delta_data / "mbpp" / "mbpp.jsonl").read_text(encoding="utf-8").splitlines())
    }
    chosen = [[problem for problem in problems if problem.source == source][:6] for source in ("gsm8k", "mbpp")]
    wanted: dict[tuple[str, bool], Status] = {}
    with VerifierPool(module.verifier, workers=2, timeout=20.0) as pool:
        for group in chosen:
            for place, problem in enumerate(group):
                text = data.templates.text(problem, byte_tokenizer())
                prompt = Prompt(id=problem.id, text=text, token_ids=(1,), source=problem.source, reference=problem.reference)
                for right, solved in ((True, problem), (False, group[place - 1])):
                    answer = programs.get(solved.id) or f"So \\boxed{{{solved.reference['answer']}}}."
                    wanted[problem.id, right] = Status.CORRECT if right else Status.INCORRECT
                    pool.submit((problem.id, right), prompt, completion_of(answer))
        verdicts = dict(pool.drain())
    assert {key: verdict.status for key, verdict in verdicts.items()} == wanted
    assert len(wanted) == 24


def test_every_prompt_shows_what_it_asks_for(
    delta_data: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[PromptData] = []
    monkeypatch.setattr(preflight, "check_inputs", lambda module, data, *, rank: built.append(data) or exit(0))
    invoke("fit", f"--config={CONFIG}", f"--data.path={delta_data}", f"--run_dir={tmp_path}", *SMALL, small=False)
    for problem in built[0].source.problems("held_out"):
        text = built[0].templates.text(problem, byte_tokenizer())
        assert text.endswith("Answer:") and problem.question in text
        if problem.source == "mbpp":
            assert all(test in text for test in problem.reference["test_list"])
        else:
            assert "boxed" in text
