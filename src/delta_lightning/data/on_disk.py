"""Data that do not fit into memory: rows stay on disk and are read as they are drawn."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from delta_lightning.data.on_demand import OnDemand, check_split
from delta_lightning.data.rows import Row, hub_table, require_columns
from delta_lightning.data.table import Table
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import PromptSource
from delta_lightning.types import Problem

KINDS = {".jsonl": "json", ".parquet": "parquet"}


@dataclass(frozen=True, kw_only=True)
class OnDisk(PromptSource):
    """The training rows of a `Table`, each read when it is drawn; the memory of a run does not grow with them.

    `datasets` writes them once as Arrow files into its cache, as large as the data, and maps these into memory, so that any row
    is at hand at once and the order is shuffled over all rows: 8 bytes of memory for each. The same rows give the same run as
    with `Table` alone, which reads everything first.

    Rows are filtered, checked and tokenized as they are drawn; only the first 256 are tried before the run. One that is left
    out is counted in `data/left_out_share`; one that can be neither used nor left out (see `data.unusable_references`) ends the
    run. Held-out problems are read whole and need a file or split of their own. Neither the uniqueness of ids nor questions
    that are in both splits are looked for: `Decontaminate` finds the latter.

    Args:
        table: where the rows are, and what its columns mean.
        path: file or folder, instead of the table's.
        cache: folder for the Arrow files; None takes that of `datasets` (HF_DATASETS_CACHE).
    """

    table: Table
    path: str | None = None
    cache: str | None = None

    def check(self) -> None:
        """The table's own check, and that held-out problems are named. Raises `ConfigError`."""
        check_split(self._table(), "OnDisk.table")

    def problems(self, split: str) -> Sequence[Problem]:
        """Training problems that are read as they are asked for; held-out ones read whole."""
        self.check()
        table = self._table()
        if split == "train":
            return DiskRows(table, self._parts(table))
        _, held_out = table.rows()
        return [table.problem(row) for row in islice(held_out or (), table.limit)]

    def every(self) -> Iterator[Problem]:
        """The problems of both splits, one after another."""
        return self._table().every()

    def on_demand(self) -> bool:
        """True."""
        return True

    def _table(self) -> Table:
        return self.table if self.path is None else dataclasses.replace(self.table, path=self.path)

    def _parts(self, table: Table) -> list[tuple[str, Any]]:
        """(name, rows) of each training file, or of the Hub data set. Raises `ConfigError`."""
        columns = table.wanted_columns()
        if table.hub is not None:
            split = table.train_split
            return [(split, hub_table(table.hub, table.hub_config, table.revision, split, columns))]
        files, _ = table.files()
        return [(file.name, rows) for file, rows in zip(files, arrow_tables(files, columns, self.cache), strict=True)]


class DiskRows(OnDemand):
    """Rows of tables on disk, one table after the other, as problems.

    Args:
        table: what the columns mean, and the most rows. parts: (name, `datasets.Dataset`) in order.
    """

    def __init__(self, table: Table, parts: Sequence[tuple[str, Any]]) -> None:
        self._table, self._parts = table, parts
        self._ends = list(accumulate(len(rows) for _, rows in parts))
        self._size = self._ends[-1] if table.limit is None else min(self._ends[-1], table.limit)

    def __len__(self) -> int:
        return self._size

    def at(self, index: int) -> Problem:
        """See `OnDemand`."""
        number = bisect_right(self._ends, index)
        name, rows = self._parts[number]
        place = index - (self._ends[number] - len(rows))
        return self._table.problem(Row(where=f"{name}:{place + 1}", values=rows[place]))


def arrow_tables(files: Sequence[Path], columns: Sequence[str], cache: str | None) -> list[Any]:
    """Each file as a table on disk with these columns, in the order of the files. Raises `ConfigError`."""
    import datasets

    tables: dict[Path, Any] = {}
    for suffix, kind in KINDS.items():
        named = {f"part{number:05d}": str(file) for number, file in enumerate(files) if file.suffix == suffix}
        if not named:
            continue
        try:
            loaded = datasets.load_dataset(kind, data_files=named, cache_dir=cache)
        except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
            reason = error.__cause__ or error
            raise ConfigError(
                f"data files {', '.join(named.values())[:200]}", wanted="files whose columns have one type in all rows",
                got=f"{type(reason).__name__}: {reason}"[:400],
                remedy="Mend them; Table reads rows one by one and names the first that cannot be used.",
            ) from error  # fmt: skip
        for name, file in named.items():
            require_columns(file, loaded[name].column_names, columns)
            tables[Path(file)] = loaded[name].select_columns(list(columns))
    return [tables[file] for file in files]
