"""results.json as a page of tables and a picture."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from bench_table import origin
from benchmarks.proxies.compare import summarised

from delta_lightning.report import markdown_table

Rows = list[dict[str, Any]]
MARKS = {"qwen3": "o", "olmo3": "^"}
SIDES = (("A>0", "C0"), ("A<0", "C3"))
OTHERS = (
    "spearman", "kendall", "top 20 %", "sign", "coefficient spearman A>0", "coefficient spearman A<0",
    "coefficient pearson A>0", "coefficient pearson A<0", "coefficient distance",
)  # fmt: skip
TEXT = Path(__file__).with_name("text.md")


def page(result: dict[str, Any]) -> str:
    """The README: `text.md` with the tables in the places that it names."""
    rows: Rows = result["rows"]
    families = list(dict.fromkeys(row["family"] for row in rows))
    trained, untrained = [row for row in rows if _trained(row)], [row for row in rows if not _trained(row)]
    tables = {
        "others_trained": others(trained),
        "others_random": others(untrained),
        "batches": batches(rows),
        "surprise": surprise(rows),
        "unsure": by_checkpoint(trained, "spearman", ", p<0.9"),
        "seconds": f"{sum(row['seconds'] for row in rows) / 60:.0f}",
        "head_low": f"{100 * min(row['length']['head'] for row in trained):.0f}",
        "head_high": f"{100 * max(row['length']['head'] for row in trained):.0f}",
        "head_error": f"{max(row['head_error'] for row in rows):.0e}",
        "count": str(len(rows)), "trained_count": str(len(trained)), "random_count": str(len(untrained)),
        "origin": origin(result["provenance"]),
    }  # fmt: skip
    tables["pearson"] = by_checkpoint(rows, "pearson")
    for family in families:
        tables[f"spearman_{family}"] = by_checkpoint([row for row in rows if row["family"] == family], "spearman")
    return TEXT.read_text(encoding="utf-8").format(**tables)


def _trained(row: dict[str, Any]) -> bool:
    return "random" not in row["checkpoint"]


def _checkpoints(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["checkpoint"] for row in rows))


def _cells(rows: Rows, name: str, measures: Iterable[str]) -> list[str]:
    """mean (least to largest) of each measure over rows."""
    found = [row["agreement"][name] for row in rows]
    cells = []
    for measure in measures:
        summary = summarised([{measure: one.get(measure)} for one in found])[measure]
        cells.append("n/a" if summary is None else f"{summary['mean']:.2f} ({summary['min']:.2f} to {summary['max']:.2f})")
    return cells


def by_checkpoint(rows: Rows, measure: str, cell: str = "") -> str:
    """A measure within each side at each checkpoint."""
    checkpoints, names = _checkpoints(rows), [name for name in rows[0]["agreement"] if "equal" not in name]
    header = ["", *(f"{checkpoint}, {side}" for checkpoint in checkpoints for side, _ in SIDES)]
    body = []
    for name in names:
        line = [name]
        for checkpoint in checkpoints:
            mine = [row for row in rows if row["checkpoint"] == checkpoint]
            line += _cells(mine, name, [f"{measure} {side}{cell}" for side, _ in SIDES])
        body.append(line)
    return markdown_table(header, body)


def others(rows: Rows) -> str:
    """The other measures over all rows."""
    return markdown_table(["", *OTHERS], [[name, *_cells(rows, name, OTHERS)] for name in rows[0]["agreement"]])


def batches(rows: Rows) -> str:
    """What was measured on."""
    body = []
    for row in rows:
        lengths, stds = row["length"], row["true coefficient std"]
        body.append([
            row["family"], str(row["seed"]), row["checkpoint"], f"{row['tokens']:,}", f"{row['tokens A>0']:,}",
            f"{row['tokens p<0.9']:,}", f"{row['reward']:.2f}", f"{row['mean p']:.3f}",
            *(f"{100 * lengths[part]:.0f}" for part in ("body", "head", "embedding")),
            *(f"{stds[side]:.3f}" for side, _ in SIDES),
        ])  # fmt: skip
    header = [
        "family", "seed", "checkpoint", "tokens", "A>0", "p<0.9", "reward", "mean p", "body, %", "head, %", "embedding, %",
        "std of true coefficients, A>0", "A<0",
    ]  # fmt: skip
    return markdown_table(header, body)


def surprise(rows: Rows) -> str:
    """Correlation with 1 - p of true margins and of each proxy's."""
    header = ["own margins of", *(f"{checkpoint}, {side}" for checkpoint in _checkpoints(rows) for side, _ in SIDES)]
    body = []
    for name in ("true gradient", *rows[0]["with 1 - p"]):
        line = [name]
        for checkpoint in _checkpoints(rows):
            for side, _ in SIDES:
                values = [
                    row["with 1 - p"][name][side] if name in row["with 1 - p"]
                    else row["agreement"]["1 - p (control)"][f"pearson {side}"]
                    for row in rows if row["checkpoint"] == checkpoint
                ]  # fmt: skip
                line.append(f"{sum(values) / len(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        body.append(line)
    return markdown_table(header, body)


def draw(result: dict[str, Any], path: Path) -> None:
    """Rank and linear correlation within each side, a mark for every rollout batch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows: Rows = result["rows"]
    names = [name for name in rows[0]["agreement"] if "equal" not in name]
    checkpoints = _checkpoints(rows)
    figure = Figure(figsize=(13, 7), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(checkpoints), sharex=True, sharey=True, squeeze=False)
    for line, measure in zip(grid, ("spearman", "pearson"), strict=True):
        for axes, checkpoint in zip(line, checkpoints, strict=True):
            for row in (row for row in rows if row["checkpoint"] == checkpoint):
                for shift, (side, colour) in zip((-0.15, 0.15), SIDES, strict=True):
                    values = [row["agreement"][name].get(f"{measure} {side}") for name in names]
                    places = [place + shift for place in range(len(names))]
                    axes.plot(values, places, MARKS.get(row["family"], "s"), color=colour, alpha=0.6, markersize=4)
            axes.axvline(0, color="0.7", linewidth=0.8)
            axes.set_title(f"{checkpoint}\n{measure}", fontsize="small")
            axes.grid(axis="y", color="0.92")
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].invert_yaxis()
    for side, colour in SIDES:
        grid[0, 0].plot([], [], "o", color=colour, markersize=4, label=f"tokens with {side}")
    for family, mark in MARKS.items():
        grid[0, 0].plot([], [], mark, color="0.4", markersize=4, label=family)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle("agreement with margins of true gradients, within each side, one mark per rollout batch", fontsize="medium")
    figure.savefig(path, dpi=80, format="png")
