"""A plan as text for people, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delta_lightning.planning.memory import Memory
from delta_lightning.planning.rollouts import StepSizes

WIDTH = 60


@dataclass(frozen=True, kw_only=True)
class Work:
    """FLOPs of a rollout step on all ranks, and its seconds where a speed is given."""

    scoring: int
    reference: int
    updates: int
    repeated: int
    seconds_scoring: float | None
    seconds_updates: float | None


@dataclass(frozen=True, kw_only=True)
class PlanPage:
    """What a plan says, in sections; `rows` are (what, value)."""

    model: Sequence[tuple[str, str]]
    expected: StepSizes
    worst: StepSizes
    memory_expected: Memory
    memory_worst: Memory
    work: Work
    speed: str
    device_memory: int | None
    notes: Sequence[str]
    contradictions: Sequence[str]

    def text(self) -> str:
        """The page."""
        lines = ["Model", *_rows(self.model), "", "One rollout step", *_rows(_step(self.expected, self.worst))]
        lines += ["", "Memory of each device, GiB" + " " * (WIDTH - 34) + "expected      worst"]
        lines += _memory(self.memory_expected, self.memory_worst)
        lines += ["", f"Work of a rollout step, all devices, {self.speed}", *_rows(self._work())]
        if self.notes:
            lines += ["", "To know", *(f"  {note}" for note in self.notes)]
        return "\n".join([*lines, "", listed(self.contradictions)]) + "\n"

    def values(self) -> dict[str, Any]:
        """The same for machines: bytes, tokens, FLOPs, seconds."""
        return {
            "model": dict(self.model), "expected": _sizes(self.expected), "worst": _sizes(self.worst),
            "memory_bytes": {"expected": _account(self.memory_expected), "worst": _account(self.memory_worst)},
            "device_memory_bytes": self.device_memory,
            "flops": {
                "scoring": self.work.scoring, "reference": self.work.reference, "updates": self.work.updates,
                "recomputation": self.work.repeated,
            },
            "seconds": {"scoring": self.work.seconds_scoring, "updates": self.work.seconds_updates},
            "notes": list(self.notes), "contradictions": list(self.contradictions),
        }  # fmt: skip

    def _work(self) -> list[tuple[str, str]]:
        work = self.work
        rows = [("scoring", _flops(work.scoring, work.seconds_scoring))]
        if work.reference:
            rows.append(("of which the reference policy", _flops(work.reference, None)))
        return [
            *rows,
            ("updates, forward and backward", _flops(work.updates, work.seconds_updates)),
            ("of which computed twice to save memory", _flops(work.repeated, None)),
            ("sampling and verifying", "not estimated: MFU says nothing of them"),
        ]


def listed(contradictions: Sequence[str]) -> str:
    """Contradictions with their number, one a line."""
    lines = [f"  {number}. {one}" for number, one in enumerate(contradictions, 1)]
    return "\n".join([f"Contradictions: {len(lines) or 'none'}", *lines])


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"  {name:<46}{value}" for name, value in rows]


def _step(expected: StepSizes, worst: StepSizes) -> list[tuple[str, str]]:
    def pair(name: str) -> str:
        a, b = (f"{_value(sizes, name):,}" for sizes in (expected, worst))
        return a if a == b else f"{a} expected, {b} at most"

    return [
        ("prompts, completions", f"{expected.prompts:,}, {expected.sequences:,} ({expected.rank_sequences:,} a device)"),
        ("prompt tokens, each", pair("prompt_tokens")),
        ("completion tokens, each", pair("completion_tokens")),
        ("trained tokens, all devices", pair("tokens")),
        ("updates, micro-batches of each", f"{expected.updates:,}, {expected.micro_batches:,} a device"),
        ("largest micro-batch, rows", pair("rows")),
        ("largest micro-batch, positions with padding", pair("positions")),
    ]


def _value(sizes: StepSizes, name: str) -> int:
    found = {
        "tokens": sizes.sequences * sizes.completion_tokens, "rows": sizes.largest.rows,
        "positions": sizes.largest.rows * sizes.largest.columns,
    }  # fmt: skip
    return found[name] if name in found else int(getattr(sizes, name))


def _memory(expected: Memory, worst: Memory) -> list[str]:
    lines = [_cells(f"stays: {name}", expected.stays.get(name, 0), size) for name, size in worst.stays.items()]
    lines.append(_cells("stays", sum(expected.stays.values()), sum(worst.stays.values())))
    for before, after in zip(expected.phases, worst.phases, strict=True):
        lines.append(_cells(f"{after.name}, on top", before.bytes, after.bytes))
        shown = {**dict.fromkeys(before.parts, 0), **after.parts}
        if len(shown) > 1:
            lines += [_cells(f"    {name}", before.parts.get(name, 0), after.parts.get(name, 0)) for name in shown]
    peaks = f"peak: {worst.peak.name}" if worst.peak.name == expected.peak.name else (
        f"peak: {expected.peak.name}; at worst {worst.peak.name}"
    )  # fmt: skip
    lines.append(_cells(peaks, expected.bytes, worst.bytes))
    lines += [_cells(f"main memory of a rank: {name}", expected.host.get(name, 0), size) for name, size in worst.host.items()]
    return lines


def _cells(name: str, first: int, second: int) -> str:
    return f"  {name:<{WIDTH - 12}}{gib(first):>10} {gib(second):>10}"


def gib(size: int) -> str:
    """Bytes in GiB, with as many digits as say something."""
    value = size / 2**30
    return f"{value:,.1f}" if value >= 10 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _flops(count: int, seconds: float | None) -> str:
    return f"{count / 1e12:,.4g} TFLOP" + ("" if seconds is None else f", {seconds:,.4g} s")


def _sizes(sizes: StepSizes) -> dict[str, int]:
    names = ("prompts", "sequences", "rank_sequences", "prompt_tokens", "completion_tokens", "updates", "micro_batches",
             "rank_trained")  # fmt: skip
    return {name: int(getattr(sizes, name)) for name in names} | {
        "micro_batch_rows": sizes.largest.rows, "micro_batch_columns": sizes.largest.columns,
        "trained": _value(sizes, "tokens"),
    }  # fmt: skip


def _account(memory: Memory) -> dict[str, Any]:
    return {
        "stays": memory.stays, "phases": {phase.name: phase.parts for phase in memory.phases}, "host": memory.host,
        "peak": memory.bytes, "peak_phase": memory.peak.name,
    }  # fmt: skip
