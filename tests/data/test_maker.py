"""Problems made into prompts, all at once or as they are drawn: the same prompts."""

from __future__ import annotations

from typing import Any

import pytest

from delta_lightning.data import ColumnValue, Deduplicate, Difficulty, PromptLength
from delta_lightning.data.maker import DrawnPrompts, PromptMaker
from delta_lightning.data.prompts import Templates
from delta_lightning.errors import ConfigError, RunError
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.types import Problem
from delta_lightning.verifiers.numeric import NumericVerifier
from support.problems import problem

FILTERS = (Difficulty(low=2, high=7), PromptLength(max_tokens=12))


def problems() -> list[Problem]:
    rows = [problem("x" * (3 + number % 11), number, difficulty=number % 10, answer=str(number)) for number in range(40)]
    rows[5] = problem("bad answer", 5, difficulty=5, answer="none at all")
    return rows


def maker(**settings: Any) -> tuple[PromptMaker, list[str], list[str]]:
    lines: list[str] = []
    reports: list[str] = []
    options: dict[str, Any] = {"skip_unusable": True, "filters": FILTERS} | settings
    return (
        PromptMaker(
            tokenizer=byte_tokenizer(), verifier=NumericVerifier(), templates=Templates(default="Q {question}"),
            max_prompt_tokens=100, say=lines.append, report=lambda name, text: reports.append(text), **options,
        ),
        lines,
        reports,
    )  # fmt: skip


def test_filters_work_one_after_another_and_say_what_they_left_out() -> None:
    make, lines, _ = maker()
    prompts = make.all(problems(), "train")
    kept = [row for row in problems() if 2 <= row.reference["difficulty"] <= 7 and len(f"Q {row.question}") <= 12]
    assert [prompt.id for prompt in prompts] == [row.id for row in kept if row.id != "5"]
    assert lines[0] == "train: Difficulty left out 16 of 40 problems" and lines[1].startswith("train: PromptLength left out")
    assert lines[2].endswith("1 of 24 problems left out, their answers cannot be used") or "their answers" in lines[2]


def test_the_held_out_split_is_cut_by_length_alone() -> None:
    make, lines, _ = maker()
    prompts = make.all(problems(), "held_out", 7)
    short = [row.id for row in problems() if len(f"Q {row.question}") <= 12][:7]
    assert [prompt.id for prompt in prompts] == [identity for identity in short if identity != "5"]
    assert not any("Difficulty" in line for line in lines)


def test_nothing_left_is_an_error_with_the_counts() -> None:
    make, _, _ = maker(filters=(Difficulty(low=2), Difficulty(high=1)))
    with pytest.raises(ConfigError, match="got 0: 40 problems, Difficulty left out 8, Difficulty left out 32"):
        make.all(problems(), "train")


def test_as_they_are_drawn_prompts_are_the_same_and_what_is_left_out_is_counted() -> None:
    make, _, _ = maker()
    drawn = DrawnPrompts(problems=problems(), maker=make)
    prompts = [drawn[place] for place in range(len(drawn))]
    assert [prompt for prompt in prompts if prompt is not None] == make.all(problems(), "train")
    assert prompts[2:7] == drawn[2:7]
    total = sum(prompt is None for prompt in prompts)
    assert sum(drawn.left_out.values()) == total + sum(prompt is None for prompt in prompts[2:7])
    assert set(drawn.left_out) == {"Difficulty", "PromptLength", "unusable reference"}
    assert [drawn.peek(place) for place in range(0, len(prompts), 3)] == prompts[::3]
    assert drawn.tried(range(9), "t") == [prompt for prompt in prompts[:9] if prompt is not None]


def test_a_row_that_can_neither_be_used_nor_left_out_ends_the_run_and_is_refused_before_it() -> None:
    make, _, _ = maker(skip_unusable=False, filters=())
    drawn = DrawnPrompts(problems=problems(), maker=make)
    assert drawn[4] is not None
    with pytest.raises(RunError, match="a row that was drawn cannot be used: data references"):
        drawn[5]
    with pytest.raises(ConfigError, match="data references"):
        drawn.tried(range(10), "t")
    assert [drawn.peek(0), drawn.peek(5)] == [drawn[0], None]


def test_filters_that_compare_problems_need_all_of_them() -> None:
    make, _, _ = maker(filters=(Deduplicate(),))
    with pytest.raises(
        ConfigError, match=r"data\.filters: wanted filters that judge each problem by itself.*got 'Dedup|got Dedup"
    ):
        DrawnPrompts(problems=problems(), maker=make)


def test_no_usable_row_among_the_first_is_an_error() -> None:
    make, _, _ = maker(filters=(ColumnValue(column="difficulty", keep=("9",)),))
    with pytest.raises(ConfigError, match=r"data t, split train: .*among the first 5 rows, got 0: ColumnValue left out 5"):
        DrawnPrompts(problems=problems(), maker=make).tried(range(5), "t")
