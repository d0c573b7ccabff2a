"""Learning curves of one run as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, float]

PHASES = ("sample", "verify", "score", "credit", "update", "sync", "wait")  # those of a rollout step, in their order
GREY = "0.45"


def draw_curves(rows: Sequence[Row], held_out: Sequence[Row], path: Path, *, title: str = "") -> None:
    """Writes a PNG of six panels: accuracy, length, seconds per phase, credit, update sizes, entropy.

    Args:
        rows: one mapping of metric names (docs/metrics.md) per rollout step, each with "step"; missing metrics are left out.
        held_out: the same for held-out evaluations: "step" and "held_out/...".
        path: the file. title: stands above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels: tuple[Callable[[Axes, Sequence[Row], Sequence[Row]], None], ...]
    panels = (_accuracy, _length, _seconds, _credit, _update, _entropy)
    for axes, panel in zip(figure.subplots(2, 3).flat, panels, strict=True):
        panel(axes, rows, held_out)
        axes.set_xlabel("rollout step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=110, format="png")


def series(rows: Sequence[Row], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric, rows without it left out."""
    chosen = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in chosen], [value for _, value in chosen]


def _line(axes: Axes, rows: Sequence[Row], name: str, label: str, **style: Any) -> None:
    steps, values = series(rows, name)
    if steps:
        axes.plot(steps, values, label=label, marker="." if len(steps) < 3 else "", **style)


def _legend(axes: Axes, columns: int, *, room: float = 0.3) -> None:
    """A legend above the curves, with room made for it: a share of the axis, or decades of a logarithmic one."""
    if not axes.get_legend_handles_labels()[0]:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 10 ** (6 * room) if axes.get_yscale() == "log" else high + room * (high - low))
    axes.legend(loc="upper center", ncols=columns, frameon=False, fontsize="small")


def _accuracy(axes: Axes, rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    axes.set_title("accuracy and reward")
    _line(axes, rows, "rollout/accuracy", "training accuracy", color="C0")
    if series(rows, "reward/mean")[1] != series(rows, "rollout/accuracy")[1]:
        _line(axes, rows, "reward/mean", "training reward", color="C0", linestyle=":")
    steps, values = series(held_out, "held_out/accuracy")
    axes.plot(steps, values, color="C3", marker="o", label="held-out accuracy")
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(1.0, high))
    _legend(axes, 2, room=0.1)


def _length(axes: Axes, rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    axes.set_title("completion length, tokens")
    _line(axes, rows, "rollout/completion_tokens", "mean", color="C0")
    _line(axes, rows, "rollout/completion_tokens_max", "longest", color=GREY, linestyle=":")
    axes.set_ylim(bottom=0)
    twin = axes.twinx()
    _line(twin, rows, "rollout/truncated_share", "cut at the limit", color="C3")
    twin.set_ylim(0, 1)
    twin.set_ylabel("share cut at the limit", color="C3")
    twin.spines[["top"]].set_visible(False)
    _legend(axes, 2, room=0.15)


def _seconds(axes: Axes, rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    axes.set_title("seconds per phase")
    names = [name for name in PHASES if any(f"seconds/{name}" in row for row in rows)]
    if names:
        heights = [[row.get(f"seconds/{name}", 0.0) for row in rows] for name in names]
        axes.stackplot([row["step"] for row in rows], heights, labels=names)
        axes.set_ylim(bottom=0)
        _legend(axes, 3)


def _credit(axes: Axes, rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    axes.set_title("token credit (scale of the advantage)")
    steps, mean = series(rows, "credit/mean")
    _, spread = series(rows, "credit/std")
    _line(axes, rows, "credit/mean", "mean", color="C0")
    if len(spread) == len(mean) and steps:
        low = [m - s for m, s in zip(mean, spread, strict=True)]
        high = [m + s for m, s in zip(mean, spread, strict=True)]
        axes.fill_between(steps, low, high, color="C0", alpha=0.2, label="± one std")
    for name in ("min", "max"):
        _line(axes, rows, f"credit/{name}", name, color=GREY, linestyle=":")
    _legend(axes, 4, room=0.15)


def _update(axes: Axes, rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    axes.set_title("size of the updates")
    _line(axes, rows, "update/grad_norm", "gradient norm", color="C0")
    _line(axes, rows, "update/kl_nats", "KL(old, new), nats", color="C1")
    _line(axes, rows, "mismatch/max_abs_nats", "sampler against scorer, max nats", color=GREY, linestyle=":")
    names = ("update/grad_norm", "update/kl_nats", "mismatch/max_abs_nats")
    if any(value > 0 for name in names for value in series(rows, name)[1]):
        axes.set_yscale("log")
        _legend(axes, 1)


def _entropy(axes: Axes, rows: Sequence[Row], held_out: Sequence[Row]) -> None:
    axes.set_title("entropy of the policy, nats per token")
    _line(axes, rows, "rollout/entropy_nats", "estimate from sampled tokens", color="C0")
    axes.set_ylim(bottom=0)
    _legend(axes, 1, room=0.15)
