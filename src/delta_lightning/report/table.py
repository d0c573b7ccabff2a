"""Tables of text for a terminal, and of Markdown for a page."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Columns aligned, two spaces apart: the first to the left, numbers to the right. Empty rows give empty lines.

    Args:
        rows: cells; rows may be of different lengths.
        indent: what every line begins with.
    """
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(row[column]) for row in rows if column < len(row)), default=0) for column in range(columns)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column and _numeric(cell) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns whose cells are all numbers are aligned to the right. A `|` in a cell is escaped."""
    right = [all(_numeric(row[column]) for row in rows) if rows else False for column in range(len(header))]
    lines = [header, ["---:" if number else "---" for number in right], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _numeric(cell: str) -> bool:
    """A number, perhaps with a sign before it or a unit behind it; "-" and "n/a" stand for one."""
    return cell in ("-", "n/a") or cell.lstrip("+-±.")[:1].isdigit()
