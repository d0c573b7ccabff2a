"""Tables (tables.md) and the picture (memory.png) of what run.py wrote: `python benchmarks/memory/page.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
TITLES = {
    "head": "Head: update of a model of one layer", "activations": "Activations: two sequences, 8 layers",
    "cache": "Cache of hidden states: scoring and credit", "layouts": "Layouts: one update",
}  # fmt: skip
SERIES = {"head": ("head", "vocabulary"), "activations": ("recomputed",), "cache": ("cache",), "layouts": ("layout", "spread")}


def main() -> None:
    found = {name: json.loads(file.read_text()) for name in TITLES if (file := HERE / f"{name}.json").exists()}
    lines: list[str] = []
    for name, one in found.items():
        lines += ["", f"## {TITLES[name]}", "", *table(one["rows"], mib=True), "", f"Bytes per {one['over'][:-1]}, and the"
                  " plan's over the measured:", "", *table(one["slopes"], mib=False)]  # fmt: skip
    (HERE / "tables.md").write_text("# Tables\n\nMiB unless the head of a column says otherwise.\n" + "\n".join(lines) + "\n")
    figure, axes = plt.subplots(1, len(found), figsize=(5 * len(found), 4), squeeze=False)
    for axis, (name, one) in zip(axes[0], found.items(), strict=True):
        draw(axis, TITLES[name], one, SERIES[name])
    figure.tight_layout()
    figure.savefig(HERE / "memory.png", dpi=90)


def table(rows: list[dict[str, Any]], *, mib: bool) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if all(row.get("plan without a mask") in (None, row.get("plan")) for row in rows):
        names = [name for name in names if name != "plan without a mask"]
    body = [[cell(name, row.get(name), mib) for name in names] for row in rows]
    return [f"| {' | '.join(one)} |" for one in [names, ["---"] * len(names), *body]]


def cell(name: str, value: Any, mib: bool) -> str:
    sizes = ("measured", "plan", "plan without a mask", "of which in main memory")
    if value is None:
        return ""
    if mib and name in sizes:
        return f"{value / 2**20:,.1f}"
    return str(value) if isinstance(value, str | bool) else f"{value:,}"


def draw(axis: Any, title: str, one: dict[str, Any], by: tuple[str, ...]) -> None:
    for number, key in enumerate(dict.fromkeys(tuple(row[name] for name in by) for row in one["rows"])):
        alike = [row for row in one["rows"] if tuple(row[name] for name in by) == key]
        label = ", ".join(f"{name} {value}" for name, value in zip(by, key, strict=True))
        x = [row[one["over"]] for row in alike]
        axis.plot(x, [row["measured"] / 2**20 for row in alike], "o", color=f"C{number}", label=label)
        if alike[0]["plan"] is not None:
            axis.plot(x, [row["plan"] / 2**20 for row in alike], "-", color=f"C{number}")
    axis.set(title=title, xlabel=one["over"], ylabel="peak, MiB (points measured, lines planned)", ylim=(0, None))
    axis.legend(fontsize=7)


if __name__ == "__main__":
    main()
