"""Imports every module that holds a verifier, so that YAML and the command line know their short names.

Not in the package's `__init__`: a worker process imports the one module that it needs.
"""

from __future__ import annotations

from delta_lightning.verifiers import choice, code, exact, json_schema, length, numeric, regex_format  # noqa: F401
from delta_lightning.verifiers.combine import by_source, first_that_applies, gate, weighted_sum  # noqa: F401
from delta_lightning.verifiers.extraction import anywhere, excerpts, extraction, paper_box  # noqa: F401
from delta_lightning.verifiers.mathematics import math_verifier, paper_grader, staged  # noqa: F401
from delta_lightning.verifiers.remote import chat_judge, remote_verifier  # noqa: F401
