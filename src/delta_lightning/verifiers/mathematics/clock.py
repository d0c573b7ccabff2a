r"""Times of day, `3:30 \text{ p.m.}`, which a grammar for mathematics reads as divisions."""

from __future__ import annotations

import re

from delta_lightning.verifiers.mathematics.tidy import unwrapped

_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?\s*(?:([ap])\.?\s*m\.?)?", re.IGNORECASE)


def same_time(gold: str, answer: str) -> bool | None:
    """Whether two `tidy` texts are the same time; None where `gold` is none. A.m. or p.m. may be left out, not changed."""
    wanted = _TIME.fullmatch(unwrapped(gold).strip())
    if wanted is None:
        return None
    got = _TIME.fullmatch(unwrapped(answer).strip())
    if got is None or [int(part or 0) for part in wanted.groups()[:3]] != [int(part or 0) for part in got.groups()[:3]]:
        return False
    return not (wanted[4] and got[4]) or wanted[4].lower() == got[4].lower()


def is_time(text: str) -> bool:
    """Whether a `tidy` text is a time, so that it needs no parser."""
    return ":" in text and _TIME.fullmatch(unwrapped(text).strip()) is not None
