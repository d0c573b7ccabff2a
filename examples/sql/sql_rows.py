"""A verifier for SQL: the query must return the right rows."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.extraction.excerpts import FenceOrText, found_in
from delta_lightning.verifiers.extraction.extraction import Extraction

# What a query may do, and the functions that it may call: nothing that writes, attaches, draws at random or reads a clock.
ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}
FUNCTIONS = {"abs", "avg", "coalesce", "count", "length", "like", "lower", "max", "min", "round", "substr", "sum", "upper"}
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000,  # bytes of a text or a row, so that few steps cannot fill the memory
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}


@dataclass(frozen=True, kw_only=True)
class SqlRows(Verifier):
    """1 where the query returns the reference's rows, in any order, from a database of its own; else 0.

    The reference holds `schema`, statements that build the database, and `rows`, a list of lists. The query can only read, and
    ends after a number of SQLite's steps, not of seconds: the same query always gets the same verdict.

    Args:
        extraction: where in the completion the query stands.
        max_steps: steps of SQLite's virtual machine, at least 1.
    """

    extraction: Extraction = FenceOrText()
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        require(self.max_steps >= 1, "SqlRows.max_steps", wanted="at least 1", got=self.max_steps, remedy="100000 is ample.")

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        refused = self.refuse_reference(prompt.reference)
        if refused is not None:
            return Verdict(status=Status.ERROR, reward=0.0, reason=refused)
        query = found_in(completion.text, self.extraction)
        if query is None:
            return Verdict(status=Status.NO_ANSWER, reward=0.0, reason="no query")
        wanted = counted(prompt.reference["rows"])
        try:
            with closing(built(prompt.reference["schema"])) as database:
                restrict(database, self.max_steps)
                rows = database.execute(query).fetchmany(wanted.total() + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:  # the query's fault: it does not parse, or may not
            return Verdict(status=Status.INCORRECT, reward=0.0, reason=str(error))
        if counted(rows) == wanted:
            return Verdict(status=Status.CORRECT, reward=1.0)
        return Verdict(status=Status.INCORRECT, reward=0.0, reason=f"other rows, the first of them {rows[:1]}")

    def reference_fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({"schema", "rows"})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """A schema that does not build, or rows that are none: a data set's mistake is found when it loads."""
        schema, rows = reference.get("schema"), reference.get("rows")
        if not isinstance(schema, str) or not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            return "'schema' must be a text and 'rows' a list of lists"
        if not rows:
            return "'rows' is empty: any statement that returns nothing would be right"
        if not all(value is None or type(value) in (int, float, str) for row in rows for value in row):
            return "'rows' must hold numbers, texts and nulls"
        try:
            built(schema).close()
        except (sqlite3.Error, ValueError) as error:
            return f"'schema' does not build: {error}"
        return None

    def examples(self) -> tuple[Example, ...]:
        """For `delta-lightning check`."""
        reference = {"schema": "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2);", "rows": [[2], [1]]}
        return (
            Example(reference=reference, text="SELECT a FROM t", status=Status.CORRECT),
            Example(reference=reference, text="SELECT a FROM t WHERE a > 1", status=Status.INCORRECT),
            Example(reference=reference, text="DROP TABLE t", status=Status.INCORRECT),
            Example(reference=reference, text=" ", status=Status.NO_ANSWER),
        )


def built(schema: str) -> sqlite3.Connection:
    """A new database in memory. Its text comes from the data set, which is trusted."""
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(schema)
    except Exception:
        database.close()
        raise
    return database


def restrict(database: sqlite3.Connection, max_steps: int) -> None:
    """From now on the connection only reads, and not for long."""
    for limit, value in LIMITS.items():
        database.setlimit(limit, value)
    database.set_progress_handler(lambda: 1, max_steps)  # interrupts at its first call

    def may(action: int, first: str | None, second: str | None, *place: str | None) -> int:
        allowed = action in ACTIONS or (action == sqlite3.SQLITE_FUNCTION and second in FUNCTIONS)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    database.set_authorizer(may)


def counted(rows: list[Any]) -> Counter[tuple[Any, ...]]:
    """The rows without their order, numbers rounded to 6 places."""
    return Counter(tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows)
