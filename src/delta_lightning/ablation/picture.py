"""The summary as a picture: coefficients, and who agrees with whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDES = (("positive", "C0", "A > 0"), ("negative", "C3", "A < 0"))


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG: a histogram per assigner, by side, above the rank correlations within each side and the gradient cosines.

    Rank correlations over both sides together are left to the tables: they mix who is ranked high within a side with which
    side is, and opposite agreements of the sides cancel in them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = summary["labels"]
    size = 0.42 * len(labels) + 2.6
    figure = Figure(figsize=(max(11.0, 3 * size + 1), 0.85 * len(labels) + size + 1), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[0.85 * len(labels) + 0.6, size])[:, 0]
    rows = above.subplots(len(labels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, label in zip(rows, labels, strict=True):
        _histogram(axes, summary["histogram_edges"], summary["assigners"][label]["coefficient"], label)
    if rows[0].get_legend_handles_labels()[0]:
        rows[0].legend(loc="upper right", frameon=False, fontsize="small")
    rows[-1].set_xlabel("coefficient")
    above.suptitle("coefficients of trained tokens, share per bin of the tokens of a side (logarithmic)", fontsize="medium")
    left, middle, right = below.subplots(1, 3)
    _matrix(left, labels, summary["spearman"]["positive"], "rank correlation, A > 0", names=True)
    _matrix(middle, labels, summary["spearman"]["negative"], "rank correlation, A < 0", names=False)
    _matrix(right, labels, summary["gradient_cosine"], "cosine of policy gradients", names=False)
    figure.savefig(path, dpi=110, format="png")


def _histogram(axes: Axes, edges: Sequence[float], sides: Mapping[str, Any], label: str) -> None:
    for side, colour, name in SIDES:
        found = sides[side]
        if found is not None:
            shares = [count / found["tokens"] for count in found["histogram"]]
            axes.stairs(shares, edges, color=colour, label=name, fill=True, alpha=0.35)
            axes.stairs(shares, edges, color=colour)
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1.5)
    axes.set_yticks([1e-3, 1e-1])
    axes.minorticks_off()
    axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _matrix(axes: Axes, labels: Sequence[str], matrix: Sequence[Sequence[float | None]], title: str, *, names: bool) -> None:
    shown = [[float("nan") if value is None else value for value in row] for row in matrix]
    axes.imshow(shown, vmin=-1, vmax=1, cmap="RdBu")
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            dark = value is not None and abs(value) > 0.6
            text = "–" if value is None else f"{value:.3f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    places = range(len(labels))
    axes.set_xticks(places, [str(number + 1) for number in places])
    axes.set_yticks(places, [f"{label}  {k + 1}" if names else str(k + 1) for k, label in enumerate(labels)], fontsize="small")
    axes.set_title(title, fontsize="medium")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
