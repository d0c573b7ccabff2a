from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from delta_lightning.data import OnDisk, Table
from delta_lightning.data.prompts import make_prompts
from delta_lightning.data.references import check_references
from delta_lightning.errors import ConfigError
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"question": f"What is {i}?", "answer": i} for i in range(start, start + count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.jsonl", rows(20))
    write(tmp_path / "test.jsonl", rows(5, start=100))
    return tmp_path


def test_two_files(folder: Path) -> None:
    table = Table(path=str(folder), held_out_file="test.jsonl")
    table.check()
    train, held_out = table.problems("train"), table.problems("held_out")
    assert [problem.question for problem in train] == [f"What is {i}?" for i in range(20)]
    assert (train[2].id, train[2].reference, train[2].source) == ("train.jsonl:3", {"answer": "2"}, folder.name)
    assert [problem.id for problem in held_out] == [f"test.jsonl:{i}" for i in range(1, 6)]


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "train-1.jsonl", rows(3, start=3))
    write(tmp_path / "train-0.jsonl", rows(3))
    table = Table(path=str(tmp_path), held_out_rows=1)
    both = [*table.problems("train"), *table.problems("held_out")]
    assert sorted(problem.id for problem in both) == [f"train-{file}.jsonl:{line}" for file in (0, 1) for line in (1, 2, 3)]
    answers = [int(problem.reference["answer"]) for problem in table.problems("train")]
    assert answers == sorted(answers)


def test_split_off_is_disjoint_complete_and_follows_the_question(tmp_path: Path) -> None:
    some = rows(30)
    forward = Table(path=str(write(tmp_path / "a.jsonl", some)), held_out_rows=7)
    backward = Table(path=str(write(tmp_path / "b.jsonl", some[::-1])), held_out_rows=7)
    held_out = {problem.question for problem in forward.problems("held_out")}
    train = {problem.question for problem in forward.problems("train")}
    assert len(held_out) == 7 and len(train) == 23 and not held_out & train
    assert held_out == {problem.question for problem in backward.problems("held_out")}
    by_row = [row["question"] for row in some]
    assert held_out not in (set(by_row[:7]), set(by_row[-7:]), set(sorted(by_row)[:7]))  # a hash, not an order


def test_split_off_keeps_equal_questions_together(tmp_path: Path) -> None:
    table = Table(path=str(write(tmp_path / "a.jsonl", rows(10) * 3)), held_out_rows=4)
    held_out = [problem.question for problem in table.problems("held_out")]
    assert len(held_out) == 6 and len(set(held_out)) == 2  # two questions, three rows each: the fourth row drags two along
    assert not set(held_out) & {problem.question for problem in table.problems("train")}


def test_columns_ids_solutions_and_other_reference_fields(tmp_path: Path) -> None:
    content = [
        {"problem": "a", "final": "1", "key": 60, "work": "so 1", "cases": [1, 2]},
        {"problem": "b", "final": "2", "key": 61, "work": None, "cases": []},
    ]
    columns = {"question": "problem", "answer": "final", "id": "key", "solution": "work", "tests": "cases"}
    table = Table(path=str(write(tmp_path / "a.jsonl", content)), columns=columns, held_out_rows=1, source="toy")
    first, second = sorted([*table.problems("train"), *table.problems("held_out")], key=lambda problem: problem.id)
    assert (first.id, first.source, first.solution, second.solution) == ("60", "toy", "so 1", None)
    assert first.reference == {"answer": "1", "tests": [1, 2]}


def test_answer_pattern_takes_the_last_match_and_strips_commas(tmp_path: Path) -> None:
    content = [
        {"question": "a", "answer": "#### 5\nstep #### 6\n#### 1,234,567 "},
        {"question": "b", "answer": "#### 1,2 and 3,4567"},
    ]
    path = str(write(tmp_path / "a.jsonl", content))

    def answers(**fields: Any) -> list[str]:
        table = Table(path=path, answer_pattern="^#### (.+)$", held_out_rows=1, **fields)
        both = sorted([*table.problems("train"), *table.problems("held_out")], key=lambda problem: problem.id)
        return [problem.reference["answer"] for problem in both]

    assert answers() == ["1,234,567", "1,2 and 3,4567"]
    assert answers(strip_commas=True) == ["1234567", "1,2 and 3,4567"]


def test_a_folder_with_one_data_file_needs_no_pattern(folder: Path) -> None:
    (folder / "train.jsonl").unlink()
    (folder / "README.md").write_text("x")
    assert len(Table(path=str(folder), held_out_rows=2).problems("train")) == 3
    for fields in ({"train_file": "train*"}, {"held_out_file": "test.jsonl"}):
        with pytest.raises(ConfigError, match="train_file"):
            Table(path=str(folder), **fields).check()


def test_limit(folder: Path) -> None:
    table = Table(path=str(folder), held_out_file="test*", limit=3)
    assert [len(table.problems(split)) for split in ("train", "held_out")] == [3, 3]


def test_overlap_is_refused_or_dropped(folder: Path) -> None:
    write(folder / "test.jsonl", rows(5, start=18))
    with pytest.raises(ConfigError, match=r"2 training problems.*train\.jsonl:19, train\.jsonl:20"):
        Table(path=str(folder), held_out_file="test.jsonl").problems("train")
    dropping = Table(path=str(folder), held_out_file="test.jsonl", overlap="drop")
    assert [len(dropping.problems(split)) for split in ("train", "held_out")] == [18, 5]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "neither"),
        ({"path": "HERE", "hub": "openai/gsm8k"}, "either path or hub"),
        ({"path": "HERE/nowhere"}, "does not exist"),
        ({"path": "HERE", "train_file": "learn*"}, r"'learn\*'.*test\.jsonl, train\.jsonl"),
        ({"path": "HERE", "held_out_file": "dev.jsonl"}, "held_out_file"),
        ({"path": "HERE", "held_out_file": "*.jsonl"}, r"train\.jsonl as both"),
        ({"path": "HERE/train.jsonl", "held_out_file": "train.jsonl"}, r"train\.jsonl as both"),
        ({"path": "HERE", "columns": {"question": "problem"}}, r"line 1.*'problem'.*'question', 'answer'"),
        ({"path": "HERE/empty.jsonl"}, "at least 1 row"),
        ({"path": "HERE/notes.txt"}, r"\.txt"),
    ],
)
def test_check_refuses(folder: Path, fields: dict[str, Any], says: str) -> None:
    (folder / "empty.jsonl").write_text("\n")
    (folder / "notes.txt").write_text("x")
    fields = {name: value.replace("HERE", str(folder)) if isinstance(value, str) else value for name, value in fields.items()}
    if "train_file" in fields:
        (folder / "empty.jsonl").unlink()
        (folder / "notes.txt").unlink()
    with pytest.raises(ConfigError, match=says):
        Table(**fields).check()


@pytest.mark.parametrize(
    ("bad", "fields", "says"),
    [
        ({"question": " ", "answer": 1}, {}, "a question"),
        ({"question": 3, "answer": 1}, {}, "a question"),
        ({"question": "q", "answer": None}, {}, "an answer"),
        ({"question": "q", "answer": " "}, {}, "an answer"),
        ({"question": "q", "answer": float("nan")}, {}, "an answer"),
        ({"question": "q", "answer": True}, {}, "an answer"),
        ({"question": "q", "answer": "72"}, {"answer_pattern": "#### (.+)$"}, "matches"),
        (
            {"question": "q", "answer": 1, "id": None},
            {"columns": {"question": "question", "answer": "answer", "id": "id"}},
            "an id",
        ),
    ],
)
def test_unusable_rows_are_refused_when_read(tmp_path: Path, bad: dict[str, Any], fields: dict[str, Any], says: str) -> None:
    good = {"question": "fine", "answer": "#### 1", "id": "x"}
    table = Table(path=str(write(tmp_path / "a.jsonl", [good, bad])), **fields)
    table.check()  # the first row is fine, and check is cheap
    with pytest.raises(ConfigError, match=r"row a\.jsonl:2.*") as caught:
        table.problems("train")
    assert says in str(caught.value)


def test_duplicate_ids_are_refused_across_splits(folder: Path) -> None:
    write(folder / "train.jsonl", [row | {"id": i} for i, row in enumerate(rows(20))])
    write(folder / "test.jsonl", [row | {"id": i + 17} for i, row in enumerate(rows(5, start=100))])
    columns = {"question": "question", "answer": "answer", "id": "id"}
    with pytest.raises(ConfigError, match="3 repeated ids, first '17', '18', '19'"):
        Table(path=str(folder), held_out_file="test.jsonl", columns=columns).problems("train")


def test_nothing_left_to_train_on_is_refused(folder: Path) -> None:
    table = Table(path=str(folder / "train.jsonl"), held_out_rows=20)
    assert len(table.problems("held_out")) == 20
    with pytest.raises(ConfigError, match="split train"):
        table.problems("train")


@pytest.mark.parametrize(
    "fields",
    [
        {"columns": {"answer": "answer"}},
        {"held_out_rows": 0},
        {"limit": 0},
        {"overlap": "ignore"},
        {"answer_pattern": "#### (.+"},
        {"answer_pattern": "#### .+"},
        {"answer_pattern": "(a)(b)"},
        {"answer_pattern": "(a)", "columns": {"question": "q"}},
    ],
)
def test_range_checks(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Table(**fields)


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        calls.append((name, config, split, revision))
        if split == "dev":
            raise ValueError('Unknown split "dev". Should be one of train, test.')
        return datasets.Dataset.from_list(rows(4) if split == "train" else rows(2, start=50))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    table = Table(hub="openai/gsm8k", hub_config="main", held_out_split="test", revision="abc123")
    table.check()
    assert not calls  # a check fetches nothing
    assert [problem.id for problem in table.problems("train")] == ["train:1", "train:2", "train:3", "train:4"]
    assert {problem.source for problem in table.problems("held_out")} == {"openai/gsm8k"}
    assert ("openai/gsm8k", "main", "test", "abc123") in calls
    for split in ("train", "held_out"):
        assert list(OnDisk(table=table).problems(split)) == list(table.problems(split))
    with pytest.raises(ConfigError, match='split "dev"'):
        Table(hub="openai/gsm8k", train_split="dev").problems("train")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set, so only what was fetched before"):
        Table(hub="openai/gsm8k", train_split="dev").problems("train")
    with pytest.raises(ConfigError, match="'problem'"):
        Table(hub="openai/gsm8k", columns={"question": "problem"}).problems("train")


def test_importing_sources_is_light() -> None:
    heavy = ("transformers", "datasets", "pyarrow", "lightning")
    code = f"import sys, delta_lightning.data; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# The public files ----------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_gsm8k(delta_data: Path) -> None:
    table = Table(
        path=str(delta_data / "gsm8k"),
        train_file="train.jsonl",
        held_out_file="test.jsonl",
        answer_pattern="^#### (.+)$",
        strip_commas=True,
    )
    table.check()
    train, held_out = table.problems("train"), table.problems("held_out")
    assert (len(train), len(held_out)) == (7473, 1319)
    assert train[0].reference == {"answer": "72"} and held_out[0].reference == {"answer": "18"}
    assert all(float(problem.reference["answer"]) or True for problem in train)
    assert len(check_references(held_out, MathVerifier())) == 1319


@pytest.mark.data
def test_math500(delta_data: Path) -> None:
    columns = {"question": "problem", "answer": "answer", "id": "unique_id", "solution": "solution"}
    table = Table(path=str(delta_data / "math500"), held_out_rows=100, columns=columns)
    train, held_out = table.problems("train"), table.problems("held_out")
    assert (len(train), len(held_out)) == (400, 100)
    assert all(problem.solution and problem.id.startswith("test/") for problem in train)


@pytest.mark.data
@pytest.mark.parametrize(("name", "number"), [("aime_2024", "id"), ("aime_2025", "problem_idx"), ("aime_2026", "problem_idx")])
def test_aime(delta_data: Path, name: str, number: str) -> None:
    columns = {"question": "problem", "answer": "answer", "id": number}
    table = Table(path=str(delta_data / name), columns=columns, held_out_rows=10)
    problems = [*table.problems("train"), *table.problems("held_out")]
    assert len(problems) == 30
    assert len(check_references(problems, MathVerifier())) == 30
    from delta_lightning.models.tokenizer import byte_tokenizer

    prompts = make_prompts(problems, byte_tokenizer(), "{question}\n", 4096)
    assert all(bytes(i - 2 for i in prompt.token_ids).decode() == prompt.text for prompt in prompts)


def test_a_question_of_several_columns(tmp_path: Path) -> None:
    tests = ["assert f({}) == '{question}'", "assert f(1) == 2"]
    file = write(tmp_path / "a.jsonl", [{"text": "Write {f}.", "n": i, "tests": tests} for i in range(3)])
    columns = {"question": "text", "number": "n", "test_list": "tests"}
    table = Table(path=str(file), held_out_rows=1, columns=columns, question_format="{number}. {question} {}\n\n{test_list}")
    problem = table.problems("train")[0]
    number = problem.reference["number"]
    assert problem.question == f"{number}. Write {{f}}. {{}}\n\n{tests[0]}\n{tests[1]}"
    assert problem.reference == {"number": number, "test_list": tests}
    assert Table(path=str(file), held_out_rows=1, columns=columns).problems("held_out")[0].question == "Write {f}."


@pytest.mark.parametrize("text", ["{test_list}", "{question} {other}", ""])
def test_a_question_format_with_the_wrong_places(text: str) -> None:
    with pytest.raises(ConfigError, match=r"Table\.question_format.*question, test_list"):
        Table(columns={"question": "q", "test_list": "t"}, question_format=text)


def test_a_question_format_meets_no_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"q": "Why?", "t": {"a": 1}}] * 2)
    table = Table(path=str(file), columns={"question": "q", "tests": "t"}, question_format="{question}{tests}")
    with pytest.raises(ConfigError, match=r"a\.jsonl:1.*a list of texts in 'tests'"):
        table.problems("train")
