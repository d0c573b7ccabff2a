"""Result files of benchmarks -> a Markdown table: `python tools/bench_table.py results.json [more.json] > table.md`.

A result file holds `columns` (a list of keys), `table` (a list of mappings) and `provenance`; numbers are shown with
three digits.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from delta_lightning.report import markdown_table


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="+", type=Path)
    for file in arguments.parse_args().files:
        print(page(json.loads(file.read_text(encoding="utf-8"))))


def page(result: dict[str, Any]) -> str:
    """The table of one result file and a line that says where it comes from."""
    columns = result["columns"]
    rows = [[shown(row.get(column)) for column in columns] for row in result["table"]]
    return markdown_table(columns, rows) + "\n" + origin(result["provenance"])


def shown(value: Any) -> str:
    if value is None:
        return "n/a"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def origin(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    seeds = ", ".join(f"{name} {value}" for name, value in record["seeds"].items()) or "none"
    dirty = " with changes" if record["dirty"] else ""
    return (
        f"`{record['command']}` on {record['time']}, commit {(record['commit'] or 'unknown')[:12]}{dirty}; {record['device']}, "
        f"{record['cores']} cores, {record['threads']} threads; {versions}; seeds: {seeds}.\n"
    )


if __name__ == "__main__":
    main()
