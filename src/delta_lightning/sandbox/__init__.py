"""Programs that nobody trusts, run apart from this machine: a ladder of rungs, cells with limits, a self-test."""

from __future__ import annotations

from delta_lightning.sandbox.cell import Cell
from delta_lightning.sandbox.ending import Ending
from delta_lightning.sandbox.limits import Limits
from delta_lightning.sandbox.rung import Rung
from delta_lightning.sandbox.sandbox import Sandbox

__all__ = ["Cell", "Ending", "Limits", "Rung", "Sandbox"]
