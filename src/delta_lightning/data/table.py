r"""Problems from files: JSON Lines, Parquet, or a Hub data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from delta_lightning.data.rows import EXTENSIONS, Row, hub_rows, read_rows
from delta_lightning.errors import ConfigError, check_path, require
from delta_lightning.functional.random import stable_hash
from delta_lightning.interfaces import PromptSource
from delta_lightning.types import Problem

NOT_REFERENCE = ("question", "id", "solution")  # keys of `columns` that are fields of a problem; the others are its reference
PLACES = re.compile(r"\{(\w+)\}")  # in question_format
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True, kw_only=True)
class Table(PromptSource):
    r"""Rows of a file, of the files in a folder, or of a Hub data set; a column map says what is what.

    A problem's id is its id column, or "file:line" without one. Held-out problems come from their own file (or Hub split) if
    one is named; otherwise `held_out_rows` rows are chosen by a hash of their question, so that the choice depends neither
    on the order of rows nor on a seed, and rows with the same question stay together.

    Args:
        path: a .jsonl or .parquet file, or a folder of them.
        hub: name of a Hub data set, instead of a path.
        hub_config: configuration of the Hub data set, for example "main" for openai/gsm8k.
        revision: commit, tag or branch of the Hub data set; a commit keeps the data what they are. None: the newest.
        train_file: file names in the folder, a glob pattern; None takes "train*", or the only data file that there is. Unused
            if `path` is a file. With `hub`, ignored.
        held_out_file: file names, in the folder, of the held-out problems; None splits them off the training files.
        train_split: split of the Hub data set. held_out_split: its held-out split; None splits problems off.
        held_out_rows: problems to split off where no held-out file or split is named; at least 1.
        columns: field -> column. "question" is required; "id" and "solution" (a worked answer) are optional; every other
            field goes into the reference, where the verifier reads it ("answer" for mathematics).
        question_format: a question made of several columns: a text with {question} and other keys of `columns` in braces, for
            example "{question}\n\n{test_list}"; a list of texts is one line per entry. None takes the question as it is.
        answer_pattern: regular expression with one group that finds the answer in its column; the last match counts, and
            ^ and $ match at lines. GSM8K: '^#### (.+)$'.
        strip_commas: remove commas between groups of three digits from the answer.
        source: name of the data set in metrics; None takes the name of the path or Hub data set.
        limit: most problems of each split; None keeps all.
        overlap: training problems whose question is also held out: "error" refuses them, "drop" leaves them out of training.
    """

    path: str | None = None
    hub: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    train_file: str | None = None
    held_out_file: str | None = None
    train_split: str = "train"
    held_out_split: str | None = None
    held_out_rows: int = 256
    columns: Mapping[str, str] = field(default_factory=lambda: {"question": "question", "answer": "answer"})
    question_format: str | None = None
    answer_pattern: str | None = None
    strip_commas: bool = False
    source: str | None = None
    limit: int | None = None
    overlap: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        require(
            "question" in self.columns,
            "Table.columns",
            wanted="an entry for 'question'",
            got=dict(self.columns),
            remedy="Add it.",
        )
        places = {"question"} if self.question_format is None else set(PLACES.findall(self.question_format))
        require(
            "question" in places and places <= self.columns.keys(),
            "Table.question_format",
            wanted="a text with {question}, and in braces only keys of columns",
            got=self.question_format,
            remedy=f"The columns have {', '.join(self.columns)}.",
        )
        require(self.held_out_rows >= 1, "Table.held_out_rows", wanted="at least 1", got=self.held_out_rows, remedy="Raise it.")
        require(
            self.limit is None or self.limit >= 1, "Table.limit", wanted="at least 1", got=self.limit, remedy="Or leave it out."
        )
        require(
            self.overlap in ("error", "drop"), "Table.overlap", wanted="error or drop", got=self.overlap, remedy="Choose one."
        )
        if self.answer_pattern is not None:
            try:
                groups = re.compile(self.answer_pattern).groups
            except re.error as error:
                remedy = "Mend the expression; in YAML put it in single quotes."
                got = f"{self.answer_pattern!r}: {error}"
                raise ConfigError("Table.answer_pattern", wanted="a regular expression", got=got, remedy=remedy) from error
            wanted = "a regular expression with one group"
            require(
                groups == 1, "Table.answer_pattern", wanted=wanted, got=self.answer_pattern, remedy="Put ( ) around the answer."
            )
            require(
                "answer" in self.columns,
                "Table.columns",
                wanted="an entry for 'answer'",
                got=dict(self.columns),
                remedy="Add it.",
            )

    def check(self) -> None:
        """Files exist, their kind is known and the first row of each has the columns; a Hub data set is not fetched."""
        if (self.path is None) == (self.hub is None):
            got = "neither" if self.path is None else f"path {self.path!r} and hub {self.hub!r}"
            remedy = "Set one of them, for example --data.path=FOLDER."
            raise ConfigError("Table", wanted="either path or hub", got=got, remedy=remedy)
        if self.path is not None:
            train, held_out = self.files()
            for file in (*train, *held_out):
                if next(read_rows(file, self.wanted_columns()), None) is None:
                    raise ConfigError(f"data file {file}", wanted="at least 1 row", got="0", remedy="Check the file.")

    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of `split`. Raises `ConfigError` for the first row that cannot be used."""
        require(split in ("train", "held_out"), "split", wanted='"train" or "held_out"', got=split, remedy="Name one of them.")
        train, held_out = self._both()
        chosen = train if split == "train" else held_out
        if not chosen:
            raise ConfigError(
                f"data {self.name()}, split {split}",
                wanted="at least 1 problem",
                got="0",
                remedy="Check the files; held_out_rows and overlap also take rows away.",
            )
        return list(islice(chosen, self.limit))

    def every(self) -> Iterator[Problem]:
        """All rows of the training files and of the held-out ones, one after the other; none is split off."""
        self.check()
        train, held_out = self.rows()
        return (self.problem(row) for row in chain(train, held_out or ()))

    # Reading ---------------------------------------------------------------------------------------------------------

    def _both(self) -> tuple[list[Problem], list[Problem]]:
        self.check()
        train_rows, held_out_rows = self.rows()
        train = [self.problem(row) for row in train_rows]
        if held_out_rows is None:
            train, held_out = split_off(train, self.held_out_rows)
        else:
            held_out = [self.problem(row) for row in held_out_rows]
        refuse_duplicates([*train, *held_out], self.name())
        return self._without_overlap(train, held_out), held_out

    def rows(self) -> tuple[Iterator[Row], Iterator[Row] | None]:
        """Rows of the training files and of the held-out ones, lazily; None where problems are split off."""
        columns = self.wanted_columns()
        if self.hub is not None:
            hub = partial(hub_rows, self.hub, self.hub_config, self.revision, columns=columns)
            return hub(self.train_split), None if self.held_out_split is None else hub(self.held_out_split)
        train, held_out = self.files()
        rows = (row for file in train for row in read_rows(file, columns))
        return rows, (row for file in held_out for row in read_rows(file, columns)) if held_out else None

    def files(self) -> tuple[list[Path], list[Path]]:
        """Training files and held-out files (empty where problems are split off). Raises `ConfigError`."""
        path = Path(self.path or "").expanduser()
        if not path.exists():
            raise ConfigError(
                "data path", wanted="a file or folder", got=f"{path}, which does not exist", remedy=check_path(path)
            )
        folder = path if path.is_dir() else path.parent
        train = self._training_files(folder) if path.is_dir() else [path]
        held_out = [] if self.held_out_file is None else _matching(folder, self.held_out_file, "held_out_file")
        shared = sorted(file.name for file in {*train} & {*held_out})
        if shared:
            remedy = "Name them apart, or leave out held_out_file to split problems off."
            got = f"{', '.join(shared)} as both"
            raise ConfigError(f"data folder {folder}", wanted="different training and held-out files", got=got, remedy=remedy)
        return train, held_out

    def _training_files(self, folder: Path) -> list[Path]:
        only = [file for file in folder.iterdir() if file.is_file() and file.suffix in EXTENSIONS]
        if self.train_file is None and len(only) == 1 and self.held_out_file is None:
            return only
        return _matching(folder, self.train_file or "train*", "train_file")

    def wanted_columns(self) -> list[str]:
        """Columns that are read."""
        return list(dict.fromkeys(self.columns.values()))

    def name(self) -> str:
        """Of the data set, in metrics."""
        return self.source or self.hub or Path(self.path or "").stem

    # One row ---------------------------------------------------------------------------------------------------------

    def problem(self, row: Row) -> Problem:
        """What a row with the wanted columns says. Raises `ConfigError` where it cannot be used."""
        values = {name: row.values[column] for name, column in self.columns.items()}
        question = values["question"]
        if not isinstance(question, str) or not question.strip():
            raise _bad_row(row, wanted="a question", got=repr(question), remedy="Mend or delete the row.")
        if "answer" in values:
            values["answer"] = self._answer(row, values["answer"])
        solution = values.get("solution")
        identity = values.get("id", row.where)
        if not isinstance(identity, str | int) or isinstance(identity, bool) or not str(identity):
            raise _bad_row(row, wanted="an id, text or integer", got=repr(identity), remedy="Map id to another column or none.")
        return Problem(
            id=str(identity),
            question=self._question(row, values),
            reference={name: value for name, value in values.items() if name not in NOT_REFERENCE},
            source=self.name(),
            solution=solution if isinstance(solution, str) and solution.strip() else None,
        )

    def _question(self, row: Row, values: Mapping[str, Any]) -> str:
        """The question, or what `question_format` makes of it; braces in the values stay as they are."""

        def text(place: re.Match[str]) -> str:
            value = values[place[1]]
            lines = value if isinstance(value, list) else [value]
            if not all(isinstance(line, str | int | float) for line in lines):
                remedy = "Leave the column out of question_format, or mend the row."
                raise _bad_row(row, wanted=f"a text or a list of texts in {place[1]!r}", got=repr(value)[:80], remedy=remedy)
            return "\n".join(map(str, lines))

        return str(values["question"]) if self.question_format is None else PLACES.sub(text, self.question_format)

    def _answer(self, row: Row, value: Any) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not number and not (isinstance(value, str) and value.strip()):
            raise _bad_row(row, wanted="an answer, text or number", got=repr(value), remedy="Mend or delete the row.")
        text = str(value)
        if self.answer_pattern is not None:
            found = re.findall(self.answer_pattern, text, re.MULTILINE)
            if not found:
                wanted = f"an answer that matches {self.answer_pattern!r}"
                raise _bad_row(row, wanted=wanted, got=repr(text[-80:]), remedy="Mend the row or answer_pattern.")
            text = found[-1]
        return THOUSANDS.sub("", text.strip()) if self.strip_commas else text.strip()

    # Splits ----------------------------------------------------------------------------------------------------------

    def _without_overlap(self, train: list[Problem], held_out: list[Problem]) -> list[Problem]:
        questions = {problem.question for problem in held_out}
        shared = [problem.id for problem in train if problem.question in questions]
        if shared and self.overlap == "error":
            got = f"{len(shared)} training problems that are also held out (ids {', '.join(shared[:5])})"
            remedy = "Remove them, or set overlap: drop to train without them."
            raise ConfigError(f"data {self.name()}", wanted="different problems in both splits", got=got, remedy=remedy)
        return [problem for problem in train if problem.question not in questions]


def split_off(problems: Sequence[Problem], count: int) -> tuple[list[Problem], list[Problem]]:
    """(rest, chosen): at least `count` problems with the smallest hashes of their question, in the order of the rows."""
    ranked = sorted({problem.question: stable_hash(problem.question) for problem in problems}.items(), key=lambda item: item[1])
    copies: dict[str, int] = {}
    for problem in problems:
        copies[problem.question] = copies.get(problem.question, 0) + 1
    chosen: set[str] = set()
    rows = 0
    for question, _ in ranked:
        if rows >= count:
            break
        chosen.add(question)
        rows += copies[question]
    rest = [problem for problem in problems if problem.question not in chosen]
    return rest, [problem for problem in problems if problem.question in chosen]


def refuse_duplicates(problems: Sequence[Problem], name: str) -> None:
    """Refuse two problems with one id. Raises `ConfigError`."""
    seen: set[str] = set()
    repeated = [problem.id for problem in problems if problem.id in seen or seen.add(problem.id)]  # type: ignore[func-returns-value]
    if repeated:
        got = f"{len(repeated)} repeated ids, first {', '.join(map(repr, dict.fromkeys(repeated[:5])))}"
        remedy = "Map id to a column that is unique in both splits, or leave it out of columns."
        raise ConfigError(f"data {name}", wanted="unique ids", got=got, remedy=remedy)


def _matching(folder: Path, pattern: str, option: str) -> list[Path]:
    files = sorted(file for file in folder.glob(pattern) if file.is_file() and file.suffix in EXTENSIONS)
    if not files:
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        wanted = f"{' or '.join(EXTENSIONS)} files that match {pattern!r}"
        raise ConfigError(
            f"data folder {folder}", wanted=wanted, got=there, remedy=f"Set {option} to the name of a file in it."
        )
    return files


def _bad_row(row: Row, *, wanted: str, got: str, remedy: str) -> ConfigError:
    return ConfigError(f"data row {row.where}", wanted=wanted, got=got, remedy=remedy)
