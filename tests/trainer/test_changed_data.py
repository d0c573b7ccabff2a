"""A data set that changed between checkpoint and resume: refused in one message, or gone on with as if nothing were."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delta_lightning.cli.failures import exit_code
from delta_lightning.data import Difficulty, Mixture, OnDisk, PromptLength, Streamed, Table
from delta_lightning.errors import ConfigError
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.progress import Progress
from delta_lightning.verifiers.numeric import NumericVerifier

ROWS, PER_STEP, DRAWN = 300, 8, 20
COLUMNS = {"question": "question", "answer": "answer", "id": "id", "level": "level"}
WEIGHTS = {"a": 0.75, "b": 0.25}


@dataclasses.dataclass
class Run:
    """What a config and its files say, to be changed."""

    folder: Path
    kind: str
    rows: list[dict[str, Any]]
    columns: dict[str, str] = dataclasses.field(default_factory=lambda: dict(COLUMNS))
    file: str = "train-0.jsonl"
    weights: dict[str, float] = dataclasses.field(default_factory=lambda: dict(WEIGHTS))
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def prepared(self) -> PromptData:
        """As `fit` does it before a model loads."""
        for old in self.folder.glob("train*"):
            old.unlink()
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        (self.folder / self.file).write_text(text, encoding="utf-8")
        (self.folder / "test.jsonl").write_text(json.dumps(row(1) | {"id": "held", "question": "2="}) + "\n", encoding="utf-8")
        table = Table(path=str(self.folder), train_file="train*", held_out_file="test*", columns=self.columns, source="t")
        source: Any = {
            "Table": lambda: table,
            "OnDisk": lambda: OnDisk(table=table),
            "Streamed": lambda: Streamed(table=table, rows=len(self.rows), window=256),
            "Mixture": lambda: Mixture(sources={"a": OnDisk(table=table), "b": OnDisk(table=table)}, weights=self.weights),
        }[self.kind]()
        data = PromptData(source, **self.settings)
        data.prepare(byte_tokenizer(), NumericVerifier(), Progress())
        return data


def row(number: int) -> dict[str, Any]:
    return {"id": f"r{number}", "question": f"{number}+{number}=", "answer": str(2 * number), "level": number % 10}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def draws(data: PromptData, first: int) -> list[str | None]:
    found = [data.nth(number, PER_STEP, seed=3) for number in range(first, first + 100)]
    return [None if prompt is None else prompt.id for prompt in found]


def edit(number: int, **values: Any) -> Callable[[Run], None]:
    return lambda run: run.rows.__setitem__(number, run.rows[number] | values)


def rename(run: Run) -> None:
    run.columns.pop("id")
    run.file = "train-1.jsonl"


def settings(**values: Any) -> Callable[[Run], None]:
    return lambda run: run.settings.update(values)


ALL, READ = ("Table", "OnDisk", "Streamed", "Mixture"), ("Table", "OnDisk", "Mixture")
CHANGES: dict[str, tuple[tuple[str, ...], Callable[[Run], Any], str]] = {
    "a row added": (ALL, lambda run: run.rows.append(row(ROWS)), r"got 30[12] prompts; the first 300|got 60[12] prompts; "),
    "the last row removed": (ALL, lambda run: run.rows.pop(), r"got 299 prompts; the first 299|got 598 prompts; "),
    "a row removed": (ALL, lambda run: run.rows.pop(7), "first difference at prompt 8, here '(a/)?r8'"),
    "most rows removed": (ALL, lambda run: run.rows.__delitem__(slice(100, None)), r"got (100|200) prompts; "),
    "a question edited": (ALL, edit(9, question="7+7="), "first difference at prompt 10, here '(a/)?r9'"),
    "an answer edited": (ALL, edit(9, answer="7"), "first difference at prompt 10, here '(a/)?r9'"),
    "a late row edited": (READ, edit(290, question="7+7="), "first difference at prompt 291, here '(a/)?r290'"),
    "a late row without a question": (("Table",), edit(290, question=""), r"data row train-0\.jsonl:291: wanted a question"),
    # Of rows that are read as they are drawn, nothing looks at a late one before the checksum does.
    "a late row drawn without a question": (
        ("OnDisk", "Mixture"), edit(290, question=""),
        "first difference at prompt 291, here 'a row that is left out or cannot be used'",
    ),
    "rows reordered": (ALL, lambda run: run.rows.reverse(), "first difference at prompt 1, here '(a/)?r299'"),
    "another column map": (ALL, lambda run: run.columns.update(answer="level"), "first difference at prompt 2, here"),
    "a field less": (ALL, lambda run: run.columns.pop("level"), "first difference at prompt 1, here"),
    "another filter": (ALL, settings(filters=[Difficulty(column="level", low=1)]), "first difference at prompt 1, "),
    "another template": (ALL, settings(template="Q {question}"), "first difference at prompt 1, here '(a/)?r0'"),
    "ids by place, and the file renamed": (ALL, rename, "first difference at prompt 1, here"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (kinds, _, _) in CHANGES.items() for kind in kinds])
def test_changed_data_are_refused_in_one_message(name: str, kind: str, folder: Path) -> None:
    _, change, message = CHANGES[name]
    run = Run(folder, kind, [row(number) for number in range(ROWS)])
    state = {"fingerprint": run.prepared().fingerprint().state()}
    run.prepared().refuse_changed(state)
    change(run)
    with pytest.raises(ConfigError, match=message) as refused:
        run.prepared().refuse_changed(state)
    assert exit_code(refused.value) == 2


SAME: dict[str, tuple[tuple[str, ...], Callable[[Run], Any]]] = {
    "the file renamed": (ALL, lambda run: setattr(run, "file", "train-1.jsonl")),
    "a column more that is not read": (ALL, lambda run: [each.update(more="x") for each in run.rows]),
    "keys in another order": (
        ALL,
        lambda run: run.rows.__setitem__(slice(None), [dict(reversed(r.items())) for r in run.rows]),
    ),
    "a filter that leaves nothing out": (ALL, settings(filters=[PromptLength(max_tokens=100)])),
    "weights in other numbers": (("Mixture",), lambda run: run.weights.update(a=3.0, b=1.0)),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (kinds, _) in SAME.items() for kind in kinds])
def test_what_changes_no_prompt_changes_no_draw(name: str, kind: str, folder: Path) -> None:
    run = Run(folder, kind, [row(number) for number in range(ROWS)])
    before = run.prepared()
    state, expected = {"fingerprint": before.fingerprint().state()}, draws(before, DRAWN)
    SAME[name][1](run)
    after = run.prepared()
    after.refuse_changed(state)
    assert draws(after, DRAWN) == expected


def test_other_weights_hold_from_the_resume_on(folder: Path) -> None:
    run = Run(folder, "Mixture", [row(number) for number in range(ROWS)])
    state = {"fingerprint": run.prepared().fingerprint().state()}
    run.weights = {"a": 0.25, "b": 0.75}
    after = run.prepared()
    after.refuse_changed(state)
    assert sum(str(each).startswith("b/") for each in draws(after, DRAWN)) == 75


def test_a_stream_names_the_prompt_that_it_compared(folder: Path) -> None:
    """Of a stream the usable ones among the first rows are compared: their numbers are not those of the rows."""
    run = Run(folder, "Streamed", [row(number) for number in range(ROWS)])
    run.settings = {"filters": [Difficulty(column="level", low=8)]}
    state = {"fingerprint": run.prepared().fingerprint().state()}
    edit(19, answer="7")(run)
    with pytest.raises(ConfigError, match="first difference at prompt 4, here 'r19'"):
        run.prepared().refuse_changed(state)


def test_a_stream_that_became_shorter_than_was_said_is_refused_at_once(folder: Path) -> None:
    run = Run(folder, "Streamed", [row(number) for number in range(50)])
    source = run.prepared().source
    assert isinstance(source, Streamed)
    with pytest.raises(ConfigError, match="ended after 50 rows, and 300 were said to be there"):
        PromptData(dataclasses.replace(source, rows=ROWS)).prepare(byte_tokenizer(), NumericVerifier(), Progress())
