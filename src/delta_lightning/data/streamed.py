"""Data that do not fit onto the disk: rows come over the network while the run goes on."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from delta_lightning.data.on_demand import OnDemand, check_split
from delta_lightning.data.rows import Row, hub_remedy, require_columns
from delta_lightning.data.table import Table
from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.interfaces import PromptSource
from delta_lightning.types import Problem

KEPT = 2  # windows at hand: a step may reach back into the one before
EVERY = 256  # rows between two calls of `tick`


@dataclass(frozen=True, kw_only=True)
class Streamed(PromptSource):
    """The training rows of a `Table`, streamed by `datasets` window by window; neither memory nor disk grows with them.

    The order of a pass: windows of `window` rows as they come, and within each a keyed permutation, so that it is a function of
    the seed and the number of a draw, the same on any number of ranks. Shuffling is as good as windows are large; a data set
    that is sorted should be read by `OnDisk`. A run resumes exactly: checkpoints hold where the stream stands, so that
    files before that place are left out. Each rank reads the whole stream. Rows are filtered, checked and tokenized as
    they are drawn, as by `OnDisk`.

    A data set whose rows changed is seen by a resume only in the number of rows, in the first 256 of them and in the rows that
    begin the windows at hand. Set `table.revision`.

    Args:
        table: where the rows are, and what its columns mean; held-out problems need a file or split of their own.
        rows: training rows; further ones are not read. None: what the Hub says.
        window: rows that are held and shuffled together, at least 256.
        path: file or folder, instead of the table's.
    """

    table: Table
    rows: int | None = None
    window: int = 10_000
    path: str | None = None

    def __post_init__(self) -> None:
        require(self.window >= 256, "Streamed.window", wanted="at least 256", got=self.window, remedy="Raise it.")
        require(self.rows is None or self.rows >= 1, "Streamed.rows", wanted="at least 1", got=self.rows, remedy="Raise it.")

    def check(self) -> None:
        """The table's own check, and that held-out problems are named. Raises `ConfigError`."""
        check_split(self._table(), "Streamed.table")

    def problems(self, split: str) -> Sequence[Problem]:
        """Training problems that are read as they are asked for; held-out ones read whole. Raises `ConfigError`."""
        self.check()
        table = self._table()
        if split == "held_out":
            _, held_out = table.rows()
            return [table.problem(row) for row in islice(held_out or (), table.limit)]
        stream, told = stream_rows(table)
        size = min(count for count in (self.rows or told, table.limit) if count) if self.rows or told else None
        require(size is not None, "Streamed.rows", wanted="the number of rows, which nothing else tells", got=None,
                remedy="Count them once, and set it.")  # fmt: skip
        assert size is not None
        rows = StreamRows(table, stream, size, self.window)
        try:
            rows.hold(0)
        except RunError as error:  # before the run it is the config's fault or the network's
            raise ConfigError("data.source", wanted="a stream that can be read", got=str(error),
                              remedy="Check the files, or the connection.") from error  # fmt: skip
        return rows

    def every(self) -> Iterator[Problem]:
        """The problems of both splits, one after another."""
        return self._table().every()

    def on_demand(self) -> bool:
        """True."""
        return True

    def shuffle_window(self) -> int | None:
        """The window: rows far apart cannot be drawn one after the other."""
        return self.window

    def _table(self) -> Table:
        return self.table if self.path is None else dataclasses.replace(self.table, path=self.path)


class StreamRows(OnDemand):
    """Rows of a stream as problems; cheap when asked for window after window, and right in any order.

    Before each window `datasets` says where its stream stands: which file, which row of it. From there it reads on later,
    and leaves out the files before. Checkpoints hold that for the windows at hand and the next, with a checksum of the
    first row, since a number of a file tells nothing where the files have changed.

    Args:
        table: what the columns mean. stream: a `datasets.IterableDataset`. size: rows that it has at least. window: rows that
            are held together.
    """

    def __init__(self, table: Table, stream: Any, size: int, window: int) -> None:
        self._table, self._size, self._window = table, size, window
        self._unread = self._stream = stream
        self._kept: dict[int, list[Mapping[str, Any]]] = {}
        self._stands: dict[int, dict[str, Any]] = {}  # window -> where the stream stands before it
        self._reader: Iterator[Mapping[str, Any]] = iter(())
        self._next = -1  # number of the window that the reader stands before
        self._came_from: Mapping[str, Any] = {}

    def __len__(self) -> int:
        return self._size

    def at(self, index: int) -> Problem:
        """See `OnDemand`."""
        number, place = divmod(index, self._window)
        values = self.hold(number)[place]
        return self._table.problem(Row(where=f"{self._table.train_split}:{index + 1}", values=values))

    def hold(self, number: int) -> list[Mapping[str, Any]]:
        """The rows of a window, read unless they are at hand. Raises `RunError`."""
        if number not in self._kept:
            self._kept[number] = self._read(number)
            while len(self._kept) > KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._stands = {each: stands for each, stands in self._stands.items() if each in (*self._kept, self._next)}
        return self._kept[number]

    def place(self) -> dict[str, Any]:
        """Windows at hand with their first rows' checksums, and where the stream stands before these and the next."""
        first = {number: self._checksum(number) for number in self._kept}
        return {"window": self._window, "stands": self._stands, "first": first}

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Read those windows, if they have this size. Raises `ConfigError` where another row begins one, or none."""
        if place in (self._came_from, {}) or place["window"] != self._window:
            return
        self._kept, self._next, self._stands, self._came_from = {}, -1, {}, place
        for number, wanted in sorted(place["first"].items()):
            self._stands |= place["stands"]  # of which `hold` keeps what the windows at hand need
            try:
                found = self._checksum(number)
            except RunError as error:
                found = str(error)
            if found != wanted:
                raise ConfigError(
                    "data", wanted="the rows of the checkpoint's run", remedy="Set the data back, or go on with the present "
                    "rows at the old position, after reading up to it, with --data.accept_changed=true.",
                    got=f"another row {number * self._window + 1:,} of the stream, or the same rows in other files",
                )  # fmt: skip

    def _checksum(self, number: int) -> str:
        """SHA-256 of a window's first row, of its columns that are read, as JSON; hexadecimal. Raises `RunError`."""
        row = self.hold(number)[0]
        read = {name: row[name] for name in self._table.wanted_columns()}
        return hashlib.sha256(json.dumps(read, sort_keys=True, default=str).encode()).hexdigest()

    def _read(self, number: int) -> list[Mapping[str, Any]]:
        """One window; unless the stream stands before it, it begins anew where it is known to stand. Raises `RunError`."""
        first = number * self._window
        wanted = min(self._window, self._size - first)
        try:
            if number != self._next:
                self._begin(first, self._stands.get(number))
            self._next = -1  # until it has been read to its end
            rows = list(self._rows(wanted, "reading the stream"))
            if first + wanted < self._size:
                self._stands[number + 1] = self._stream.state_dict()
        except (OSError, ValueError) as error:
            raise RunError(f"the stream of the data broke off after row {first:,}: {type(error).__name__}: {error}") from error
        self._next = number + 1
        if len(rows) < wanted:
            raise RunError(
                f"the stream of the data ended after {first + len(rows):,} rows, and {self._size:,} were said to be there: "
                "set data.source.rows"
            )
        require_columns(f"row {first + 1} of the stream", rows[0], self._table.wanted_columns())
        return rows

    def _begin(self, first: int, stands: dict[str, Any] | None) -> None:
        """Have the reader stand before row `first`: at once where the stream stood there before, else row after row."""
        self._stream = copy.deepcopy(self._unread)  # copies that are not deep spoil one another's places
        if stands is not None:
            self._stream.load_state_dict(copy.deepcopy(stands))  # it changes as it is read on
            self.tick("finding the place in the stream, row", first, self._size)
        self._reader = iter(self._stream)
        for _ in self._rows(first if stands is None else 0, "reading up to the place in the stream, row"):
            pass

    def _rows(self, count: int, phase: str) -> Iterator[Mapping[str, Any]]:
        for done, row in enumerate(islice(self._reader, count), 1):
            if done % EVERY == 0:
                self.tick(phase, done, count)
            yield row


def stream_rows(table: Table) -> tuple[Any, int | None]:
    """(`datasets.IterableDataset` of the training rows, how many there are if it knows). Raises `ConfigError`."""
    import datasets

    try:
        if table.hub is not None:
            stream = datasets.load_dataset(
                table.hub, table.hub_config, split=table.train_split, revision=table.revision, streaming=True
            )
        else:
            files, _ = table.files()
            kind = "json" if files[0].suffix == ".jsonl" else "parquet"
            mixed = {file.suffix for file in files}
            require(len(mixed) == 1, "Streamed.table", wanted="files of one kind", got=sorted(mixed), remedy="Convert some.")
            stream = datasets.load_dataset(kind, data_files=list(map(str, files)), split="train", streaming=True)
    except (OSError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ConfigError("the stream of the data", wanted="a data set", got=got, remedy=hub_remedy(datasets)) from error
    splits = stream.info.splits or {}
    told = splits[table.train_split].num_examples if table.hub is not None and table.train_split in splits else None
    return stream, told
