"""Rows of JSON Lines and Parquet files and of Hub data sets, each with a name by which a person can find it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delta_lightning.errors import ConfigError

EXTENSIONS = (".jsonl", ".parquet")
PARQUET_ROWS = 4096  # rows decoded at a time


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: `where` is "file:line" (JSON Lines) or "file:row" (the rest), counted from 1."""

    where: str
    values: Mapping[str, Any]


def read_rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a file, lazily, each with at least `columns`.

    Raises `ConfigError`: unknown extension, a file that cannot be read, a malformed line, a missing column.
    """
    if file.suffix not in EXTENSIONS:
        raise ConfigError(
            f"data file {file}",
            wanted=" or ".join(EXTENSIONS),
            got=repr(file.suffix),
            remedy="Convert it, one JSON object per line.",
        )
    try:
        yield from _json_lines(file, columns) if file.suffix == ".jsonl" else _parquet(file, columns)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"data file {file}", wanted="a file that can be read", got=reason, remedy="Check it.") from error


def _json_lines(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{file.name}:{number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                remedy = "Mend or delete the line; each line must be one JSON object in UTF-8."
                raise ConfigError(f"{file}, line {number}", wanted="valid JSON", got=str(error), remedy=remedy) from error
            if not isinstance(values, dict):
                remedy = "Each line must be one JSON object with named columns."
                got = f"a {type(values).__name__}"
                raise ConfigError(f"{file}, line {number}", wanted="a JSON object", got=got, remedy=remedy)
            require_columns(f"{file}, line {number}", values, columns)
            yield Row(where=where, values=values)


def _parquet(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            require_columns(str(file), table.schema_arrow.names, columns)
            number = 0
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=list(columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(where=f"{file.name}:{number}", values=values)
    except pyarrow.ArrowException as error:
        remedy = "Fetch or write the file again."
        raise ConfigError(f"data file {file}", wanted="a Parquet file", got=str(error), remedy=remedy) from error


def hub_rows(name: str, config: str | None, revision: str | None, split: str, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a Hub data set (or of a folder that `datasets` knows). Raises `ConfigError` where it cannot be had."""
    for number, values in enumerate(hub_table(name, config, revision, split, columns), 1):
        yield Row(where=f"{split}:{number}", values=values)


def hub_table(name: str, config: str | None, revision: str | None, split: str, columns: Sequence[str]) -> Any:
    """A split of a Hub data set with these columns, on disk (`datasets.Dataset`). Raises `ConfigError`."""
    import datasets

    what = f"data set {name!r}, split {split!r}"
    try:
        table = datasets.load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ConfigError(what, wanted="a data set", got=got, remedy=hub_remedy(datasets)) from error
    require_columns(what, table.column_names, columns)
    return table.select_columns(list(columns))


def hub_remedy(datasets: Any) -> str:
    """What to do where a Hub data set cannot be had."""
    if datasets.config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, so only what was fetched before can be read: unset it once to fetch the data set."
    return "Check name, configuration, revision and split and the network, or download the data set and set path."


def require_columns(what: str, present: Mapping[str, Any] | Sequence[str], columns: Sequence[str]) -> None:
    """Refuse a row or table without one of `columns`. Raises `ConfigError`."""
    missing = [column for column in columns if column not in present]
    if missing:
        raise ConfigError(
            what,
            wanted=f"the column {missing[0]!r}",
            got=f"the columns {', '.join(map(repr, present)) or 'none'}",
            remedy="Say in `columns` which column holds what.",
        )
