"""Imports every module that holds a verifier, so that YAML and the command line know their short names.

Not in the package's `__init__`: a worker process imports the one module that it needs.
"""

from __future__ import annotations

from delta_lightning.verifiers import (  # noqa: F401
    by_source,
    choice,
    code,
    exact,
    excerpts,
    first_that_applies,
    gate,
    json_schema,
    length,
    math,
    numeric,
    regex_format,
    weighted_sum,
)
from delta_lightning.verifiers.remote import chat_judge, remote_verifier  # noqa: F401
