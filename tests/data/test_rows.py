from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from delta_lightning.data.rows import read_rows
from delta_lightning.errors import ConfigError


def test_blank_lines_are_skipped_and_line_numbers_stay(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"q": "\xc3\xa9"}\n\n   \n{"q": "b"}')
    rows = list(read_rows(file, ["q"]))
    assert [(row.where, row.values["q"]) for row in rows] == [("a.jsonl:1", "é"), ("a.jsonl:4", "b")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"q": "b"', "valid JSON"),
        (b'{"q": "\xff\xfe"}', "valid JSON"),
        (b'["b"]', "a list"),
        (b"null", "a NoneType"),
        (b'{"p": 1, "r": 2}', "'p', 'r'"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: bytes, says: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"q": "a"}\n\n' + line + b'\n{"q": "c"}\n')
    with pytest.raises(ConfigError, match=r"a\.jsonl, line 3") as caught:
        list(read_rows(file, ["q"]))
    assert says in str(caught.value)


def test_reading_is_lazy(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"q": "a"}\nbroken\n')
    assert next(read_rows(file, ["q"])).values == {"q": "a"}


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"q": ["a", "b"], "n": [1, 2], "unused": [None, None]}), file)
    assert [(row.where, dict(row.values)) for row in read_rows(file, ["q", "n"])] == [
        ("a.parquet:1", {"q": "a", "n": 1}),
        ("a.parquet:2", {"q": "b", "n": 2}),
    ]
    with pytest.raises(ConfigError, match=r"'answer'.*'q', 'n', 'unused'"):
        list(read_rows(file, ["answer"]))


@pytest.mark.parametrize("content", [b"", b"PAR1 not really"])
def test_unreadable_parquet(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="a Parquet file"):
        list(read_rows(file, ["q"]))


def test_unknown_extension_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q\n1\n")
    with pytest.raises(ConfigError, match=r"\.csv"):
        next(read_rows(tmp_path / "a.csv", ["q"]))
    with pytest.raises(ConfigError, match="No such file"):
        next(read_rows(tmp_path / "b.jsonl", ["q"]))
