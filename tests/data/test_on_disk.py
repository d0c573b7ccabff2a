"""Rows that stay on disk: the same problems, the same order, the same run as with `Table`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from delta_lightning.data import Mixture, OnDisk, PromptLength, Table
from delta_lightning.errors import ConfigError
from delta_lightning.models.tokenizer import byte_tokenizer
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.verifiers.numeric import NumericVerifier


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=7)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rows(first: int, last: int) -> list[dict[str, Any]]:
    return [{"question": f"{n}+{n}=", "answer": str(2 * n), "level": n % 4, "more": "x" * 50} for n in range(first, last)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "train-0.jsonl", rows(0, 23))
    write(tmp_path / "train-1.parquet", rows(23, 60))
    write(tmp_path / "train-2.jsonl", rows(60, 64))
    write(tmp_path / "test.jsonl", [row | {"question": f"{row['answer']}="} for row in rows(0, 10)])
    return tmp_path


def table(folder: Path, **settings: Any) -> Table:
    columns = {"question": "question", "answer": "answer", "level": "level"}
    return Table(**({"path": str(folder), "held_out_file": "test*", "columns": columns, "source": "t"} | settings))


@pytest.mark.parametrize("limit", [None, 30])
def test_the_problems_are_those_of_the_table(folder: Path, limit: int | None) -> None:
    disk = OnDisk(table=table(folder, limit=limit))
    for split in ("train", "held_out"):
        assert list(disk.problems(split)) == list(table(folder, limit=limit).problems(split))
    problems = disk.problems("train")
    assert (
        len(problems) == (limit or 64)
        and problems[24].id == "train-1.parquet:2"
        and problems[3:5] == [problems[3], problems[4]]
    )
    for outside in (-1, len(problems)):
        with pytest.raises(IndexError):
            problems[outside]
    assert len(list(disk.every())) == 74 and disk.on_demand()


def prepared(source: Any, **settings: Any) -> PromptData:
    data = PromptData(source, **({"filters": [PromptLength(max_tokens=6)], "unusable_references": "skip"} | settings))
    data.prepare(byte_tokenizer(), NumericVerifier(), Progress())
    return data


def drawn(data: PromptData, count: int, start: int = 0) -> list[str]:
    found = [data.nth(number, 4, seed=3) for number in range(start, count)]
    return [prompt.id for prompt in found if prompt is not None]


def test_the_order_is_that_of_the_table(folder: Path) -> None:
    disk, whole = prepared(OnDisk(table=table(folder)), filters=[]), prepared(table(folder), filters=[])
    assert drawn(disk, 150) == drawn(whole, 150)
    assert drawn(prepared(OnDisk(table=table(folder))), 150, 70) == drawn(prepared(OnDisk(table=table(folder))), 150)[-80:]
    assert disk.known_prompts() == whole.train_prompts and disk.lengths()[-1] == disk.max_prompt_tokens


def test_what_is_left_out_is_skipped_and_counted(folder: Path) -> None:
    bad = [{"question": "7+7=", "answer": "fourteen", "level": 0}, {"question": "", "answer": "1", "level": 0}]
    write(folder / "train-2.jsonl", bad * 4)
    data, book = prepared(OnDisk(table=table(folder)), filters=[PromptLength(max_tokens=5)]), MetricBook()
    seen: list[str] = []
    stream = data.stream(0, 4, seed=0)
    while len(seen) < 40:
        taken = stream.take(4)
        seen += [prompt.id for prompt in taken]
        if not taken:
            break
    stream.observe(book)
    assert sorted(seen) == sorted(f"train-0.jsonl:{n + 1}" for n in range(10)), "the ten rows of one digit"
    assert 0 < book.take(Ranks.current())["data/left_out_share"] < 1
    assert set(data.train_prompts.left_out) == {"PromptLength", "unusable reference", "malformed row"}  # type: ignore[attr-defined]


def test_the_fingerprint_sees_a_changed_file(folder: Path) -> None:
    state = {"fingerprint": prepared(OnDisk(table=table(folder))).fingerprint().state()}
    prepared(OnDisk(table=table(folder))).refuse_changed(state)
    changed = rows(0, 23)
    changed[11]["answer"] = "0"
    write(folder / "train-0.jsonl", changed)
    with pytest.raises(ConfigError, match=r"first difference at prompt 12, here 'train-0\.jsonl:12'"):
        prepared(OnDisk(table=table(folder))).refuse_changed(state)


def test_in_a_mixture_with_weights(folder: Path) -> None:
    mixture = Mixture(
        sources={"disk": OnDisk(table=table(folder)), "small": table(folder, limit=8)}, weights={"disk": 2, "small": 1}
    )
    data = prepared(mixture, filters=[])
    names = [identity.split("/")[0] for identity in drawn(data, 90)]
    assert names.count("disk") == 60 and names[:3].count("disk") == 2
    assert data.source_names() == ["disk", "small"]


def test_refusals(folder: Path) -> None:
    with pytest.raises(ConfigError, match="held-out problems of their own"):
        OnDisk(table=table(folder, held_out_file=None)).check()
    with pytest.raises(ConfigError, match="wanted the column 'text', got the columns 'question', 'answer'"):
        OnDisk(table=table(folder, columns={"question": "text"})).problems("train")
    (folder / "train-2.jsonl").write_text('{"question": "a", "answer": "1", "level": 1}\n{"question": ')
    with pytest.raises(ConfigError, match=r"data files .*train-2\.jsonl: wanted files whose columns have one type"):
        OnDisk(table=table(folder)).problems("train")
