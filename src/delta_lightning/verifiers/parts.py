"""Imports every module that holds a verifier, so that YAML and the command line know their short names.

Not in the package's `__init__`: a worker process imports the one module that it needs.
"""

from __future__ import annotations

from delta_lightning.verifiers import math  # noqa: F401
