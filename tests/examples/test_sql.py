"""The tutorial docs/new_domain.md: its files are those of examples/sql, and they do what the page says."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from delta_lightning.__main__ import main
from delta_lightning.types import Prompt, Status
from support.cli import Invoke, invoke
from support.verdicts import completion_of

__all__ = ["invoke"]
ROOT = Path(__file__).parents[2]
EXAMPLE, PAGE = ROOT / "examples" / "sql", (ROOT / "docs" / "new_domain.md").read_text(encoding="utf-8")
NAMES = ("make_data", "sql_rows")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the example in the working folder; what it makes importable is forgotten afterwards."""
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def sql(folder: Path) -> ModuleType:
    return importlib.import_module("sql_rows")


def make_data() -> None:
    importlib.import_module("make_data").main()


def test_the_page_shows_the_files() -> None:
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, flags=re.DOTALL)
    assert blocks == [(EXAMPLE / name).read_text(encoding="utf-8") for name in ("make_data.py", "sql_rows.py", "run.yaml")]


def test_every_solution_is_right_and_every_near_miss_wrong(sql: ModuleType, folder: Path) -> None:
    make_data()
    judge = sql.SqlRows()
    for name, count in (("train", 800), ("test", 64)):
        lines = (folder / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == count
        for row in map(json.loads, lines[:40]):
            misses = {row["solution"].replace(what, other) for what, other in AGGREGATES if what in row["solution"]}
            misses |= {re.sub(pattern, "", row["solution"]) for pattern in (r" AND item = '\w+'", r" AND amount \S \d+")}
            assert len(misses) == 5
            assert status(judge, row, row["solution"]) == "correct"
            assert {status(judge, row, miss) for miss in misses} == {"incorrect"}


WHAT = ("count(*)", "sum(amount)", "max(amount)", "min(amount)")
AGGREGATES = [(what, other) for what in WHAT for other in WHAT if other != what]
SCHEMA = "CREATE TABLE t (a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL);"
DATABASE = {"schema": SCHEMA, "rows": [[1, "x"], [2, None]]}


def prompt_of(row: dict[str, Any]) -> Prompt:
    return Prompt(id="p", text="?", token_ids=(1,), source="sql", reference=row)


def status(judge: Any, row: dict[str, Any], text: str) -> str:
    verdict = judge.score(prompt_of(row), completion_of(text))
    assert verdict.reward == float(verdict.status is Status.CORRECT)
    return str(verdict.status.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SELECT a, b FROM t", "correct"),
        ("select * from t order by a desc;", "correct"),
        ("So:\n```sql\nSELECT * FROM t\n```\nDone.", "correct"),
        ("SELECT a + 0.0, b FROM t", "correct"),  # 1.0 is 1
        ("SELECT a FROM t", "incorrect"),
        ("SELECT * FROM t UNION ALL SELECT 3, 'y'", "incorrect"),
        ("SELECT * FROM t WHERE a = 1", "incorrect"),
        ("SELECT * FROM t; SELECT 1", "incorrect"),
        ("SELECT * FROM t; DROP TABLE t", "incorrect"),
        ("I do not know", "incorrect"),
        ("SELECT \x00", "incorrect"),
        ("SELECT '\ud800'", "incorrect"),
        (" ", "no_answer"),
    ],
)
def test_statuses(sql: ModuleType, text: str, wanted: str) -> None:
    assert status(sql.SqlRows(), DATABASE, text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "ATTACH DATABASE 'stolen.db' AS s", "VACUUM INTO 'stolen.db'", "CREATE TABLE u (a)", "INSERT INTO t VALUES (3, 'y')",
        "DELETE FROM t", "UPDATE t SET a = 3", "PRAGMA user_version = 3", "PRAGMA database_list", "SELECT load_extension('x')",
        "SELECT random()", "SELECT datetime('now')", "SELECT zeroblob(1000000000)", "SELECT printf('%1000000000d', 1)",
        "SELECT * FROM pragma_database_list", "BEGIN", "SAVEPOINT s", "ANALYZE",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT count(*) FROM t a, t b, t c, t d, t e, t f, t g, t h, t i, t j, t k, t l, t m, t n, t o, t p, t q, t r, t s",
        "SELECT " + "(" * 500 + "1" + ")" * 500, "SELECT " + "||".join(["'" + "x" * 100 + "'"] * 40),
    ],
)  # fmt: skip
def test_hostile_queries_fail_and_leave_nothing(sql: ModuleType, folder: Path, text: str) -> None:
    before = files(folder)
    verdict = sql.SqlRows().score(prompt_of(DATABASE), completion_of(text))
    assert verdict.status is Status.INCORRECT and not verdict.reason.startswith("other rows")  # SQLite itself refused
    assert files(folder) == before


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "__pycache__")


BAD_ROWS = [{"rows": rows} for rows in (None, [], [1], [[[1]]], [[True]])]


@pytest.mark.parametrize("change", [{"schema": None}, {"schema": "CREATE"}, {"schema": "\x00"}, *BAD_ROWS])
def test_references_that_cannot_be_used(sql: ModuleType, change: dict[str, Any]) -> None:
    assert sql.SqlRows().refuse_reference({**DATABASE, **change}) is not None
    assert status(sql.SqlRows(), {**DATABASE, **change}, "SELECT * FROM t") == "error"


def test_it_obeys_the_laws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "sql_rows.SqlRows"]) == 0
    assert capsys.readouterr().out.count("... yes") == 2


def test_the_planted_defect_of_the_page_is_caught(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "sql_rows.py").read_text(encoding="utf-8")
    blaming = text.replace("Verdict(status=Status.ERROR", "Verdict(status=Status.INCORRECT")
    assert blaming != text
    (folder / "sql_rows.py").write_text(blaming, encoding="utf-8")
    assert main(["check", "sql_rows.SqlRows"]) == 1
    said = next(line for line in PAGE.splitlines() if "BROKEN" in line)
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_two_steps(folder: Path, invoke: Invoke) -> None:
    make_data()
    done = invoke(
        "fit", "--config=run.yaml", "--run_dir=run", "--trainer.max_epochs=2", "--model.backbone.warm_start=null",
        "--model.backbone.layers=1", "--model.prompts_per_step=4", "--model.completions_per_prompt=2",
        "--model.sampling.max_new_tokens=8", "--data.held_out_prompts=4", small=False,
    )  # fmt: skip
    assert done.code == 0, done.err
    with (folder / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        steps = [row for row in csv.DictReader(file) if row["reward/mean"]]
    assert len(steps) == 2 and all(float(row["verdict/error_share"]) == 0 for row in steps)
    assert "Unable to serialize" not in (folder / "run" / "config.yaml").read_text(encoding="utf-8")


def test_sqlite_can_be_limited() -> None:
    assert sqlite3.sqlite_version_info >= (3, 34) and hasattr(sqlite3.Connection, "setlimit")
