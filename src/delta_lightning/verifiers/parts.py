"""Imports every module that holds a verifier, so that YAML and the command line know their short names.

Not in the package's `__init__`: a worker process imports the one module that it needs.
"""

from __future__ import annotations

from delta_lightning.verifiers import (  # noqa: F401
    anywhere,
    by_source,
    choice,
    code,
    exact,
    excerpts,
    extraction,
    first_that_applies,
    gate,
    json_schema,
    length,
    math,
    numeric,
    paper_box,
    paper_grader,
    regex_format,
    staged,
    weighted_sum,
)
from delta_lightning.verifiers.remote import chat_judge, remote_verifier  # noqa: F401
