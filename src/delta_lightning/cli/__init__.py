"""The command line: the composition root, the only package that may import everything.

Importing it imports nothing heavy; `DeltaCLI` and `main` load Lightning when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delta_lightning.cli.app import DeltaCLI
    from delta_lightning.cli.app import run as main

__all__ = ["DeltaCLI", "main"]


_IN_APP = {"DeltaCLI": "DeltaCLI", "main": "run"}


def __getattr__(name: str) -> Any:
    if name not in _IN_APP:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("delta_lightning.cli.app"), _IN_APP[name])
