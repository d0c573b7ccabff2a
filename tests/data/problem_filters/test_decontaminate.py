"""Planted contaminations are found, in whatever spelling; what shares a phrase is not; a report says which and why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from delta_lightning.data import Decontaminate, Table
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import FilterContext
from delta_lightning.types import Problem
from support.problems import problem

EVALUATION = [
    r"Let $ABC$ be a triangle with $\angle A = 60^\circ$ and $AB = 1{,}000$. Find the length of the altitude from $B$ to $AC$.",
    r"What is \(\dfrac{1}{2} + 7\)?",
    "How many positive integers less than 100 are divisible by neither 3 nor 7 but leave remainder 1 when divided by 5?",
]


@pytest.fixture
def against(tmp_path: Path) -> dict[str, Table]:
    rows = [json.dumps({"question": text, "answer": "1"}) for text in EVALUATION]
    (tmp_path / "evaluation.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return {"exam": Table(path=str(tmp_path / "evaluation.jsonl"))}


PLANTED = [
    EVALUATION[0].upper().replace("\\ANGLE", "\\angle").replace("\\CIRC", "\\circ"),
    "Let ABC be a triangle with \\angle A=60^{\\circ} and AB = 1000.\n\nFind  the length of the altitude from B to AC",
    "Problem 3. " + EVALUATION[2] + " Explain your answer.",
    r"what is $\tfrac 1 2+7$",  # shorter than an n-gram: as a whole
    "How many positive integers less than 100 are divisible by neither 3 nor 7 but leave no remainder at all?",  # half of it
]
CLEAN = [
    "Let ABC be a triangle with three equal sides. Find its area.",
    r"What is \(\dfrac{1}{2} + 8\)?",
    "How many positive integers less than 100 are prime?",
    "",
]


def test_planted_contaminations_are_found_and_nothing_else(against: dict[str, Table]) -> None:
    reports: dict[str, str] = {}
    problems = [problem(text, number) for number, text in enumerate([*PLANTED, *CLEAN])]
    keep = Decontaminate(against=against).open(FilterContext(count_tokens=lambda _: [], report=reports.__setitem__))
    assert keep(problems) == [False] * len(PLANTED) + [True] * len(CLEAN)
    rows = [json.loads(line) for line in reports["decontamination.jsonl"].splitlines()]
    assert [row["id"] for row in rows] == [str(number) for number in range(len(PLANTED))]
    assert [row["evaluation_id"][-1] for row in rows] == ["1", "1", "3", "2", "3"]
    assert [row["share"] for row in rows[:4]] == [1, 1, 1, 1] and 0.5 <= rows[4]["share"] < 1
    assert rows[2]["ngram"] == "how many positive integers less than 100 are"
    page = reports["decontamination.md"]
    assert "5 of 9 training problems" in page and "| exam | 3 | 3 | 5 |" in page and "are left out" in page


def test_report_only_keeps_everything(against: dict[str, Table]) -> None:
    reports: dict[str, str] = {}
    context = FilterContext(count_tokens=lambda _: [], report=reports.__setitem__)
    keep = Decontaminate(against=against, action="report").open(context)
    assert keep([problem(PLANTED[0], 0), problem(CLEAN[0], 1)]) == [True, True]
    assert "1 of 2 training problems" in reports["decontamination.md"] and "are kept" in reports["decontamination.md"]


def test_any_common_ngram(against: dict[str, Table]) -> None:
    """GPT-3's convention finds a shared phrase that covers less than half of the question."""
    phrase = "How many positive integers less than 100 are prime?"
    context = FilterContext(count_tokens=lambda _: [])
    assert Decontaminate(against=against, n=8, min_share=0).open(context)([problem(phrase, 0)]) == [False]
    assert Decontaminate(against=against, n=13, min_share=0).open(context)([problem(phrase, 0)]) == [True]


def test_refusals(against: dict[str, Table], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Decontaminate\.against"):
        Decontaminate(against={})
    for wrong in ({"n": 0}, {"min_share": 1.5}):
        with pytest.raises(ConfigError, match="Decontaminate"):
            Decontaminate(against=against, **wrong)  # type: ignore[arg-type]
    missing = Decontaminate(against={"exam": Table(path=str(tmp_path / "none.jsonl"))})
    with pytest.raises(ConfigError, match=r"Decontaminate\.against, exam: data path"):
        missing.check()
    other = Decontaminate(against={"exam": Table(path=str(tmp_path / "evaluation.jsonl"), columns={"question": "problem"})})
    with pytest.raises(ConfigError, match=r"exam: .*wanted the column 'problem', got the columns 'question', 'answer'"):
        other.index()


@pytest.mark.data
def test_real_training_sets_against_real_evaluation_sets() -> None:
    """Every evaluation question planted into the DeepMath sample is found; the sample itself is clean; GSM8K has three near
    copies of its own test set."""
    folder = Path(os.environ["DELTA_DATA"])
    math = {
        "math500": Table(path=str(folder / "math500/test.jsonl"), columns={"question": "problem"}),
        "aime_2025": Table(path=str(folder / "aime_2025/train.jsonl"), columns={"question": "problem"}),
    }
    sample = list(Table(path=str(folder / "deepmath_sample/sample.jsonl"), columns={"question": "prompt", "id": "id"}).every())
    context = FilterContext(count_tokens=lambda _: [])
    keep = Decontaminate(against=math).open(context)
    assert len(sample) == 30 and all(keep(sample))
    planted: list[Problem] = [each for source in math.values() for each in source.every()]
    assert len(planted) == 530 and not any(keep(planted))
    test = {"gsm8k": Table(path=str(folder / "gsm8k/test.jsonl"))}
    kept = Decontaminate(against=test).open(context)(list(Table(path=str(folder / "gsm8k/train.jsonl")).every()))
    assert kept.count(False) == 3
