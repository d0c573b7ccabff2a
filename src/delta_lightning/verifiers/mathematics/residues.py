r"""Answers in modular arithmetic, `3 \pmod 7`, which math-verify reads as a list of products of letters."""

from __future__ import annotations

import re

_RESIDUE = re.compile(
    r"(?:(?P<name>[A-Za-z][A-Za-z0-9_{}]*)\s*(?:\\equiv|=)\s*)?(?P<value>-?[0-9]{1,40})\s*"
    r"\(?\s*(?:\\[pb]?mod(?![A-Za-z])|(?:\\(?:text|mathrm|operatorname)\{\s*mod\s*\}|mod\b))\s*\{?\s*(?P<modulus>[0-9]{1,40})\s*\}?\s*\)?"
)
_INTEGER = re.compile(r"(?:[A-Za-z][A-Za-z0-9_{}]*\s*(?:\\equiv|=)\s*)?(-?[0-9]{1,40})")


def same_residue(gold: str, answer: str) -> bool | None:
    r"""Whether two `tidy` texts are the same class of integers; None where neither is one.

    Where both name a modulus it must be the same, and the values may differ by a multiple of it: `10 \pmod 7` is `3 \pmod 7`. A
    modulus that the answer leaves out is allowed, but then the value must be the reference's own; one that the reference lacks
    is wrong.
    """
    if "mod" not in gold and "mod" not in answer:
        return None
    wanted, got = _RESIDUE.fullmatch(gold), _RESIDUE.fullmatch(answer)
    if wanted is None:
        return False if got is not None and _INTEGER.fullmatch(gold) else None
    if got is None:
        plain = _INTEGER.fullmatch(answer)
        return plain is not None and int(plain[1]) == int(wanted["value"])
    if wanted["name"] and got["name"] and wanted["name"] != got["name"]:
        return False
    modulus = int(wanted["modulus"])
    return modulus == int(got["modulus"]) and modulus > 0 and (int(wanted["value"]) - int(got["value"])) % modulus == 0


def is_residue(text: str) -> bool:
    """Whether a `tidy` text is a class of integers, so that it needs no parser."""
    return "mod" in text and _RESIDUE.fullmatch(text) is not None
