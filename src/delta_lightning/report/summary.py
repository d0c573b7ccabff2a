"""What a run came to, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from delta_lightning.report.table import text_table

Row = Mapping[str, float]

COMPARED = (  # metric of a rollout step, its name for people, its format
    ("rollout/accuracy", "training accuracy", "{:.3f}"),
    ("reward/mean", "reward", "{:.3f}"),
    ("rollout/completion_tokens", "response length, tokens", "{:.1f}"),
)


def summarise(
    history: Sequence[Row], held_out: Sequence[Row], *, sequences_per_step: int, phases: Sequence[str]
) -> dict[str, Any]:
    """Plain values for a JSON file.

    Args:
        history: metrics of each rollout step, in order, each with "step"; at least one.
        held_out: those of each held-out evaluation.
        sequences_per_step: completions of a rollout step, P * G.
        phases: names of the phases that make up a step, as in "seconds/{name}".

    Returns:
        `steps`; `held_out_accuracy` with `before`, `after` and their steps (None without evaluations); for each compared
        metric its first and last value; mean seconds per rollout step by phase; tokens per second, sampled tokens over
        sampling time, ahead or not (`sampled`) and over the whole step (`step`).
    """
    known = [row for row in held_out if "held_out/accuracy" in row]
    phase_seconds = {name: _mean(history, f"seconds/{name}") for name in phases}
    whole = [row for row in history if "seconds/step" in row and "rollout/completion_tokens" in row]
    sampled = [{**row, "sampling": _sampling(row)} for row in history if "rollout/completion_tokens" in row]
    return {
        "steps": int(history[-1]["step"]),
        "held_out_accuracy": {
            "before": known[0]["held_out/accuracy"], "before_step": int(known[0]["step"]),
            "after": known[-1]["held_out/accuracy"], "after_step": int(known[-1]["step"]),
        } if known else None,
        "first_and_last": {name: _ends(history, name) for name, _, _ in COMPARED},
        "seconds_per_step": _mean(history, "seconds/step"),
        "seconds_per_phase": {name: seconds for name, seconds in phase_seconds.items() if seconds is not None},
        "tokens_per_second": {
            "sampled": _rate([row for row in sampled if row["sampling"]], "sampling", sequences_per_step),
            "step": _rate(whole, "seconds/step", sequences_per_step),
        },
    }  # fmt: skip


def summary_table(summary: Mapping[str, Any]) -> str:
    """The summary as a short table for a terminal."""
    rows: list[list[str]] = [["", "before", "after"]]
    accuracy = summary["held_out_accuracy"]
    if accuracy is not None:
        steps = f"after {accuracy['before_step']} and {accuracy['after_step']} rollout steps"
        rows.append(["held-out accuracy", f"{accuracy['before']:.3f}", f"{accuracy['after']:.3f}", steps])
    for name, label, form in COMPARED:
        ends = summary["first_and_last"][name]
        if ends is not None:
            note = "first and last rollout step" if name == COMPARED[0][0] else ""
            rows.append([label, form.format(ends[0]), form.format(ends[1]), note])
    return text_table(rows) + "\n\n" + text_table(_time_rows(summary))


def _time_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    step, phases = summary["seconds_per_step"], summary["seconds_per_phase"]
    rows = [["", "s/step", "share"]]
    total = step or sum(phases.values()) or 1.0
    rows += [[name, f"{seconds:.3f}", f"{100 * seconds / total:.1f} %"] for name, seconds in phases.items()]
    if step is not None:
        other = step - sum(phases.values())
        rows += [["other", f"{other:.3f}", f"{100 * other / total:.1f} %"], ["rollout step", f"{step:.3f}", "100.0 %"]]
    rates = summary["tokens_per_second"]
    for label, name in (("sampled tokens per second of sampling", "sampled"), ("sampled tokens per second in all", "step")):
        if rates[name] is not None:
            rows.append([label, f"{rates[name]:,.0f}"])
    return rows


def _ends(history: Sequence[Row], name: str) -> list[float] | None:
    values = [row[name] for row in history if name in row]
    return [values[0], values[-1]] if values else None


def _mean(history: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in history if name in row]
    return sum(values) / len(values) if values else None


def _sampling(row: Row) -> float:
    """Seconds of sampling for this step, during it or during the one before."""
    return row.get("seconds/sample", 0.0) + row.get("seconds/ahead_sample", 0.0)


def _rate(rows: Sequence[Row], seconds: str, sequences: int) -> float | None:
    """Tokens of all rows over the seconds of all rows."""
    total = sum(row[seconds] for row in rows)
    return sequences * sum(row["rollout/completion_tokens"] for row in rows) / total if total else None
