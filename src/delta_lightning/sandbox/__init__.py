"""Programs that nobody trusts, run apart from this machine: a ladder of rungs, cells with limits, a self-test."""

from __future__ import annotations

from delta_lightning.sandbox.cell import Cell
from delta_lightning.sandbox.ending import Ending
from delta_lightning.sandbox.limits import Limits
from delta_lightning.sandbox.report import Report
from delta_lightning.sandbox.rung import Rung
from delta_lightning.sandbox.sandbox import Sandbox
from delta_lightning.sandbox.self_test import self_test

__all__ = ["Cell", "Ending", "Limits", "Report", "Rung", "Sandbox", "self_test"]
