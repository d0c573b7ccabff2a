"""A file of answers: rows made ready for a verifier, refused by line where they cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from delta_lightning.cli.messages import nearest
from delta_lightning.data.rows import Row, read_rows
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt

FIELDS = ("completion", "reference", "id", "source", "prompt", "label", "token_ids", "finish_reason")
_NAMED = 5  # refused references named in a message
_TEXTS = ("source", "prompt", "finish_reason")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One row: what is judged, and what it should come to (`label`, None where nobody says)."""

    where: str
    prompt: Prompt
    completion: Completion
    label: bool | None


def read_answers(file: Path, columns: Mapping[str, str], most: int | None = None) -> Iterator[Answer]:
    """Answers of a .jsonl or .parquet file, lazily.

    Args:
        file: its rows have "completion", "reference" (an object) and perhaps the other `FIELDS`.
        columns: field -> column. Fields that are none of `FIELDS` are put into the reference. Without a map a column that is no
            field is refused; with one it is left alone.
        most: rows to read; None reads all.

    Raises:
        ConfigError: a file or line that cannot be read, unknown or missing columns, values of a wrong type.
    """
    if not file.is_file():
        remedy = "Name a .jsonl or .parquet file."
        raise ConfigError("--data", wanted="a file of answers", got=f"{file}, which is {_kind(file)}", remedy=remedy)
    present = _parquet_columns(file) if file.suffix == ".parquet" else None
    of_reference = {name: column for name, column in columns.items() if name not in FIELDS}
    wanted = {name: columns.get(name, name) for name in FIELDS}
    needed = [wanted["completion"], *of_reference.values(), *(columns[name] for name in FIELDS if name in columns)]
    if present is not None:
        if not columns:
            _refuse_unknown(str(file), present)
        needed += [column for column in wanted.values() if column in present]
    for row in islice(read_rows(file, list(dict.fromkeys(needed))), most):
        if not columns:
            _refuse_unknown(f"{file}, {_place(row)}", row.values)
        yield _answer(row, wanted, of_reference)


def check_answers(file: Path, columns: Mapping[str, str], verifier: Verifier, most: int | None = None) -> int:
    """How many rows there are, once every one of them can be graded. Raises `ConfigError`."""
    judges: dict[str, tuple[Verifier, frozenset[str]]] = {}
    seen: dict[tuple[str, str], str | None] = {}  # many answers share a problem, and reading a reference may take long
    refused: list[str] = []
    count = 0
    for answer in read_answers(file, columns, most):
        count += 1
        source, reference = answer.prompt.source, answer.prompt.reference
        if source not in judges:
            judge = verifier.route(source)
            judges[source] = (judge, judge.reference_fields())
        judge, wanted = judges[source]
        missing = sorted(wanted - reference.keys())
        if missing:
            raise ConfigError(
                f"{file}, {answer.where}",
                wanted=f"a reference with {missing[0]!r}, which {type(judge).__name__} reads",
                got=f"the fields {', '.join(map(repr, reference)) or 'none'}",
                remedy=f"Put it into 'reference', or say where it is: --columns.{missing[0]}=COLUMN.",
            )
        key = (source, repr(reference))
        if key not in seen:
            seen[key] = judge.refuse_reference(reference)
        if seen[key] is not None:
            refused.append(f"{answer.where}: {seen[key]}")
    if refused:
        more = "; ..." if len(refused) > _NAMED else ""
        got = f"{len(refused)} of {count} that it refuses: {'; '.join(refused[:_NAMED])}{more}"
        wanted_ones = f"references that {type(verifier).__name__} can use"
        raise ConfigError(str(file), wanted=wanted_ones, got=got, remedy="Mend or remove these rows.")
    if count == 0:
        raise ConfigError(str(file), wanted="at least 1 row", got="0", remedy="Check the file.")
    return count


def _answer(row: Row, wanted: Mapping[str, str], of_reference: Mapping[str, str]) -> Answer:
    values = {name: row.values.get(column) for name, column in wanted.items()}
    reference = values["reference"]
    if reference is None:
        reference = {}
    if not isinstance(reference, Mapping):
        raise _wrong(row, wanted["reference"], "an object with named fields", reference)
    reference = {**reference, **{name: row.values[column] for name, column in of_reference.items()}}
    if not isinstance(values["completion"], str):
        raise _wrong(row, wanted["completion"], "text", values["completion"])
    for name in _TEXTS:
        if not isinstance(values[name], str | None):
            raise _wrong(row, wanted[name], "text", values[name])
    tokens = values["token_ids"] or ()
    if not isinstance(tokens, list | tuple) or not all(type(token) is int for token in tokens):
        raise _wrong(row, wanted["token_ids"], "a list of integers", tokens)
    identity = row.where if values["id"] is None else str(values["id"])
    prompt = Prompt(id=identity, text=values["prompt"] or "", token_ids=(), source=values["source"] or "", reference=reference)
    completion = Completion(
        prompt_id=identity, sample_index=0, token_ids=tuple(tokens), text=values["completion"],
        finish_reason=values["finish_reason"] or "stop", version=0, logprobs=(), raw_logprobs=(),
    )  # fmt: skip
    return Answer(where=row.where, prompt=prompt, completion=completion, label=_label(row, wanted["label"]))


def _label(row: Row, column: str) -> bool | None:
    label = row.values.get(column)
    if label is None or isinstance(label, bool):
        return label
    if type(label) is int and label in (0, 1):
        return bool(label)
    raise _wrong(row, column, "true, false or null", label)


def _wrong(row: Row, column: str, wanted: str, got: Any) -> ConfigError:
    return ConfigError(
        f"{row.where}, column {column!r}", wanted=wanted, got=f"{type(got).__name__} {str(got)[:80]!r}",
        remedy="Mend the row, or name another column in --columns.",
    )  # fmt: skip


def _refuse_unknown(what: str, present: Mapping[str, Any] | list[str]) -> None:
    unknown = [name for name in present if name not in FIELDS]
    if unknown:
        remedy = f"Say what is where, as in --columns.answer={unknown[0]}; other columns are then left alone."
        remedy += nearest(unknown[0], FIELDS)
        raise ConfigError(what, wanted=f"columns out of {', '.join(FIELDS)}", got=repr(unknown[0]), remedy=remedy)


def _parquet_columns(file: Path) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(file).names)
    except (pyarrow.ArrowException, OSError) as error:
        remedy = "Fetch or write the file again."
        raise ConfigError(f"data file {file}", wanted="a Parquet file", got=str(error), remedy=remedy) from error


def _place(row: Row) -> str:
    return f"line {row.where.rpartition(':')[2]}"


def _kind(file: Path) -> str:
    return "a folder" if file.is_dir() else "not there"
