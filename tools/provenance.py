"""Prints where a result made here and now would come from, as JSON: `python tools/provenance.py [name=seed ...]`."""

from __future__ import annotations

import json
import sys

from delta_lightning.report import provenance

if __name__ == "__main__":
    pairs = (argument.split("=", 1) for argument in sys.argv[1:])
    print(json.dumps(provenance(seeds={name: int(value) for name, value in pairs}), indent=1))
