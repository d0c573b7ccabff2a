"""What a person reads after a run: tables, curves, where a result comes from. No Lightning here."""

from delta_lightning.report.curves import draw_curves
from delta_lightning.report.provenance import provenance
from delta_lightning.report.table import markdown_table, text_table

__all__ = ["draw_curves", "markdown_table", "provenance", "text_table"]
