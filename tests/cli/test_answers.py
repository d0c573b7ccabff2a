from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from delta_lightning.cli.answers import check_answers, read_answers
from delta_lightning.errors import ConfigError
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier


def written(folder: Path, *rows: Any) -> Path:
    file = folder / "answers.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return file


FULL = {
    "completion": "so \\boxed{4}", "reference": {"answer": "4"}, "id": 7, "source": "sums", "prompt": "2 + 2?", "label": True,
    "token_ids": [5, 6], "finish_reason": "length",
}  # fmt: skip


def test_every_field_arrives(tmp_path: Path) -> None:
    answer, bare = read_answers(written(tmp_path, FULL, {"completion": "", "reference": {"answer": 4}}), {})
    assert (answer.prompt.id, answer.prompt.source, answer.prompt.text, answer.label) == ("7", "sums", "2 + 2?", True)
    assert answer.prompt.reference == {"answer": "4"}
    assert (answer.completion.text, answer.completion.token_ids, answer.completion.finish_reason) == (
        "so \\boxed{4}", (5, 6), "length",
    )  # fmt: skip
    assert (bare.prompt.id, bare.prompt.source, bare.label, bare.completion.finish_reason) == (
        "answers.jsonl:2",
        "",
        None,
        "stop",
    )


def test_a_column_map(tmp_path: Path) -> None:
    file = written(tmp_path, {"response": "\\boxed{4}", "gold": "4", "id": "a", "ok": 1, "left": "alone"})
    (answer,) = read_answers(file, {"completion": "response", "answer": "gold", "label": "ok"})
    assert (answer.prompt.id, answer.prompt.reference, answer.label) == ("a", {"answer": "4"}, True)
    assert check_answers(file, {"completion": "response", "answer": "gold"}, MathVerifier()) == 1


def test_the_first_rows(tmp_path: Path) -> None:
    assert check_answers(written(tmp_path, *[FULL] * 5, "no JSON"), {}, MathVerifier(), 3) == 3


def test_parquet_reads_the_same(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [FULL, FULL | {"label": None, "source": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "answers.parquet")
    both = [list(read_answers(file, {})) for file in (tmp_path / "answers.parquet", written(tmp_path, *rows))]
    assert [(answer.prompt, answer.completion, answer.label) for answer in both[0]] == [
        (answer.prompt, answer.completion, answer.label) for answer in both[1]
    ]
    pyarrow.parquet.write_table(pyarrow.table({"response": ["x"], "gold": ["4"]}), tmp_path / "other.parquet")
    (answer,) = read_answers(tmp_path / "other.parquet", {"completion": "response", "answer": "gold"})
    assert answer.prompt.reference == {"answer": "4"}
    with pytest.raises(ConfigError, match="'response'"):
        list(read_answers(tmp_path / "other.parquet", {}))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "line 2.*valid JSON"),
        ("[1]", "line 2.*a JSON object"),
        ({"reference": {"answer": "4"}}, "line 2.*'completion'"),
        ({"completion": "x", "refrence": {"answer": "4"}}, "line 2.*'refrence'.*Did you mean reference"),
        ({"completion": 4, "reference": {"answer": "4"}}, "jsonl:2, column 'completion'.*wanted text, got int"),
        ({"completion": "x", "reference": "4"}, "jsonl:2, column 'reference'.*an object"),
        ({"completion": "x"}, "jsonl:2.*a reference with 'answer', which MathVerifier reads, got the fields none"),
        ({"completion": "x", "reference": {"gold": "4"}}, "got the fields 'gold'.*--columns.answer=COLUMN"),
        ({"completion": "x", "reference": {"answer": ""}}, "1 of 2 that it refuses: answers.jsonl:2: "),
        ({"completion": "x", "reference": {"answer": "4"}, "label": "yes"}, "column 'label'.*true, false or null, got str"),
        ({"completion": "x", "reference": {"answer": "4"}, "label": 2}, "column 'label'"),
        ({"completion": "x", "reference": {"answer": "4"}, "token_ids": ["a"]}, "column 'token_ids'"),
        ({"completion": "x", "reference": {"answer": "4"}, "source": 3}, "column 'source'"),
    ],
)
def test_rows_that_cannot_be_graded(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_answers(written(tmp_path, FULL, row), {}, MathVerifier())


def test_refused_references_are_named_up_to_five(tmp_path: Path) -> None:
    file = written(tmp_path, *[FULL | {"reference": {"answer": "\\frac{"}}] * 7)
    with pytest.raises(ConfigError, match=r"7 of 7 that it refuses: answers.jsonl:1: .*answers.jsonl:5: .*; \.\.\."):
        check_answers(file, {}, MathVerifier())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for file, says in ((tmp_path / "none.jsonl", "not there"), (tmp_path, "a folder")):
        with pytest.raises(ConfigError, match=says):
            check_answers(file, {}, MathVerifier())
    (tmp_path / "a.csv").touch()
    with pytest.raises(ConfigError, match=r"jsonl or \.parquet"):
        check_answers(tmp_path / "a.csv", {}, MathVerifier())
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(ConfigError, match="a Parquet file"):
        check_answers(tmp_path / "a.parquet", {}, MathVerifier())
    with pytest.raises(ConfigError, match="at least 1 row"):
        check_answers(written(tmp_path), {}, MathVerifier())
    with pytest.raises(ConfigError, match="'gold'"):
        check_answers(written(tmp_path, FULL), {"answer": "gold"}, MathVerifier())
