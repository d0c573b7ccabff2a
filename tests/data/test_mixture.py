from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from delta_lightning.data import Arithmetic, Mixture, Table
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import PromptSource

TWO = Mixture(
    sources={
        "small": Arithmetic(digits=1, num_train=10, num_held_out=5),
        "large": Arithmetic(digits=2, num_train=40, num_held_out=20),
    }
)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_prefix_holds_the_proportions_of_the_whole(split: str) -> None:
    problems = TWO.problems(split)
    sizes = {name: len(source.problems(split)) for name, source in TWO.sources.items()}
    assert Counter(problem.source for problem in problems) == sizes
    for length in range(len(problems) + 1):
        seen = Counter(problem.source for problem in problems[:length])
        assert all(abs(seen[name] - length * size / len(problems)) <= 1 for name, size in sizes.items())


def test_problems_are_the_sources_own_in_their_order_under_new_names() -> None:
    for name, source in TWO.sources.items():
        mine = [problem for problem in TWO.problems("train") if problem.source == name]
        theirs = source.problems("train")
        assert [problem.id for problem in mine] == [f"{name}/{problem.id}" for problem in theirs]
        assert [(p.question, p.reference, p.solution) for p in mine] == [(p.question, p.reference, p.solution) for p in theirs]


def test_ids_are_unique_and_everything_is_the_same_again() -> None:
    twice = Mixture(
        sources={"a": Arithmetic(digits=1, num_train=9, num_held_out=4), "b": Arithmetic(digits=1, num_train=9, num_held_out=4)}
    )
    ids = [problem.id for split in ("train", "held_out") for problem in twice.problems(split)]
    assert len(set(ids)) == len(ids) == 26
    assert [problem.id for problem in twice.problems("train")] == ids[:18]


def table(folder: Path, name: str, rows: int) -> str:
    lines = [json.dumps({"question": f"{name} {row}?", "answer": str(row)}) for row in range(rows)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return f"{name}.jsonl"


def test_relative_paths_start_from_the_folder(tmp_path: Path) -> None:
    first, second = table(tmp_path, "a", 6), table(tmp_path, "b", 8)
    sources: dict[str, PromptSource] = {
        "a": Table(path=first, held_out_rows=2), "b": Table(path=str(tmp_path / second), held_out_rows=2),
        "c": Arithmetic(digits=1, num_train=3, num_held_out=1),
    }  # fmt: skip
    mixture = Mixture(sources=sources, path=str(tmp_path))
    mixture.check()
    assert Counter(problem.source for problem in mixture.problems("train")) == {"a": 4, "b": 6, "c": 3}
    assert len(mixture.problems("held_out")) == 5


def test_errors_name_the_source(tmp_path: Path) -> None:
    missing = Mixture(sources={"good": Arithmetic(), "bad": Table(path="nothing.jsonl")}, path=str(tmp_path))
    with pytest.raises(ConfigError, match="bad: data path: wanted a file or folder"):
        missing.check()
    table(tmp_path, "a", 3)
    few = Mixture(sources={"few": Table(path=str(tmp_path / "a.jsonl"), held_out_rows=3)})
    with pytest.raises(ConfigError, match="few: data a, split train: wanted at least 1 problem"):
        few.problems("train")


@pytest.mark.parametrize("sources", [{}, {"a/b": Arithmetic()}, {"": Arithmetic()}])
def test_refusals(sources: dict[str, PromptSource]) -> None:
    with pytest.raises(ConfigError, match=r"Mixture\.sources"):
        Mixture(sources=sources)


def test_weights_are_shares_of_every_source() -> None:
    sources = {"a": Arithmetic(), "b": Arithmetic()}
    assert Mixture(sources=sources, weights={"a": 3, "b": 1}).shares() == {"a": 3, "b": 1}
    assert Mixture(sources=sources).shares() == {}
    with pytest.raises(ConfigError, match=r"Mixture\.weights: wanted a weight for each of a, b"):
        Mixture(sources=sources, weights={"a": 1})
    with pytest.raises(ConfigError, match=r"Mixture\.weights: wanted weights above 0"):
        Mixture(sources=sources, weights={"a": 1, "b": 0})


def test_every_problem_whatever_its_split(tmp_path: Path) -> None:
    mixture = Mixture(sources={"a": Table(path=table(tmp_path, "a", 6)), "b": Arithmetic(num_train=3, num_held_out=2)},
                      path=str(tmp_path))  # fmt: skip
    problems = list(mixture.every())
    assert [p.id for p in problems[:6]] == [f"a/a.jsonl:{n}" for n in range(1, 7)]
    assert Counter(p.source for p in problems) == {"a": 6, "b": 5}
    with pytest.raises(ConfigError, match="bad: data path"):
        list(Mixture(sources={"bad": Table(path="nothing.jsonl")}).every())
