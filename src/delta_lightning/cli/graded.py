"""What a verifier made of a file of answers, as tables for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from delta_lightning.types import Status, Verdict

TAIL = 80  # characters of an answer that are shown
_JUDGED = frozenset(Status) - {Status.ERROR, Status.UNAVAILABLE}


@dataclass(frozen=True, kw_only=True)
class Graded:
    """One answer with its verdict; `tail` is the end of its text, `seconds` how long the verdict took."""

    id: str
    source: str
    label: bool | None
    tail: str
    verdict: Verdict
    seconds: float

    def line(self) -> dict[str, object]:
        """For JSON."""
        verdict = self.verdict
        row: dict[str, object] = {
            "id": self.id, "source": self.source, "status": verdict.status.value, "reward": verdict.reward,
            "components": dict(verdict.components), "measures": dict(verdict.measures), "reason": verdict.reason,
            "seconds": round(self.seconds, 6),
        }  # fmt: skip
        return row if self.label is None else {**row, "label": self.label}


def report(graded: Sequence[Graded], *, examples: int) -> str:
    """Statuses, measures, agreement with labels and examples; ends with a newline."""
    blocks = [_statuses(graded), _sources(graded), _numbers(graded), _labels(graded, examples), _examples(graded, examples)]
    return "\n".join("\n".join(block) + "\n" for block in blocks if block)


def share_of(graded: Sequence[Graded], status: Status) -> float:
    """Share of that status, 0 to 1."""
    return sum(row.verdict.status is status for row in graded) / max(1, len(graded))


def _statuses(graded: Sequence[Graded]) -> list[str]:
    head = ("status", "count", "share", "mean reward", "mean ms", "p50 ms", "p99 ms", "max ms")
    groups = [(status.value, [row for row in graded if row.verdict.status is status]) for status in Status]
    return _table([head, *(_cells(name, rows, len(graded)) for name, rows in [*groups, ("all", list(graded))] if rows)])


def _sources(graded: Sequence[Graded]) -> list[str]:
    """Correct answers by data set, where there are several."""
    names = sorted({row.source for row in graded})
    if len(names) < 2:
        return []
    head = ("data set", "count", "correct", "mean reward")
    lines = [head]
    for name in names:
        rows = [row for row in graded if row.source == name]
        lines.append((name or "(none)", str(len(rows)), f"{100 * share_of(rows, Status.CORRECT):.1f} %", _reward(rows)))
    return _table(lines)


def _cells(name: str, rows: Sequence[Graded], total: int) -> tuple[str, ...]:
    seconds = sorted(row.seconds for row in rows)
    times = (math.fsum(seconds) / len(seconds), _quantile(seconds, 0.5), _quantile(seconds, 0.99), seconds[-1])
    return (name, str(len(rows)), f"{100 * len(rows) / total:.1f} %", _reward(rows), *(f"{1000 * time:.2f}" for time in times))


def _reward(rows: Sequence[Graded]) -> str:
    """Mean over verdicts that say something of the answer."""
    rewards = [row.verdict.reward for row in rows if row.verdict.status in _JUDGED]
    return f"{math.fsum(rewards) / len(rewards):.3f}" if rewards else "-"


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of the values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _numbers(graded: Sequence[Graded]) -> list[str]:
    """Means of the parts of the reward and of the verifier's own measures."""
    lines = [("measured", "mean", "rows")]
    kinds: tuple[tuple[str, Callable[[Verdict], Mapping[str, float]]], ...] = (
        ("component ", lambda verdict: verdict.components),
        ("", lambda verdict: verdict.measures),
    )
    for prefix, of in kinds:
        judged = [of(row.verdict) for row in graded if row.verdict.status in _JUDGED]
        for name in sorted({name for values in judged for name in values}):
            values = [each[name] for each in judged if name in each]
            lines.append((prefix + name, f"{math.fsum(values) / len(values):.4g}", str(len(values))))
    return _table(lines) if len(lines) > 1 else []


def _labels(graded: Sequence[Graded], examples: int) -> list[str]:
    labelled = [row for row in graded if row.label is not None]
    if not labelled:
        return []
    lines = [("label", "correct", "otherwise", "no verdict")]
    for label in (True, False):
        rows = [row for row in labelled if row.label is label]
        right = sum(row.verdict.status is Status.CORRECT for row in rows)
        judged = sum(row.verdict.status in _JUDGED for row in rows)
        lines.append((str(label).lower(), str(right), str(judged - right), str(len(rows) - judged)))
    judged_rows = [row for row in labelled if row.verdict.status in _JUDGED]
    wrong = [row for row in judged_rows if (row.verdict.status is Status.CORRECT) is not row.label]
    agreed = len(judged_rows) - len(wrong)
    share = f" ({100 * agreed / len(judged_rows):.2f} %)" if judged_rows else ""
    said = f"agreement with labels: {agreed} of {len(judged_rows)}{share}"
    shown = [line for row in wrong[:examples] for line in _example(row, f"label {str(row.label).lower()}, ")]
    more = [f"  ... and {len(wrong) - examples} more"] if len(wrong) > examples else []
    return [*_table(lines), said, *(["rows that disagree:", *shown, *more] if wrong and examples else [])]


def _examples(graded: Sequence[Graded], examples: int) -> list[str]:
    def lines() -> Iterator[str]:
        for status in Status:
            rows = [row for row in graded if row.verdict.status is status]
            for row in rows[:examples]:
                yield from _example(row)

    found = list(lines())
    return ["examples:", *found] if found else []


def _example(row: Graded, before: str = "") -> list[str]:
    reason = f": {_one_line(row.verdict.reason)}" if row.verdict.reason else ""
    return [f"  {row.id}  {before}{row.verdict.status.value}{reason}", f"      ...{_one_line(row.tail)}"]


def _one_line(text: str) -> str:
    """Printable and on one line: an answer may hold anything, a terminal's commands too."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def _table(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
