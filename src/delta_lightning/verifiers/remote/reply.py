"""A judge's JSON turned into a verdict, strictly."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from delta_lightning.types import Prompt, Status, Verdict
from delta_lightning.verifiers.remote.exchange import AwayError, NonsenseError, excerpt


def judged(ask: Callable[[], Verdict]) -> Verdict:
    """The verdict that `ask` finds: UNAVAILABLE where the service is away, ERROR where it answers nonsense."""
    try:
        return ask()
    except AwayError as error:
        return Verdict(status=Status.UNAVAILABLE, reward=0.0, reason=str(error))
    except NonsenseError as error:
        return Verdict(status=Status.ERROR, reward=0.0, reason=str(error))


def wanted_reference(prompt: Prompt, fields: Sequence[str]) -> dict[str, Any]:
    """The fields of the reference that are sent. Raises `NonsenseError` where one is missing or no JSON."""
    missing = [name for name in fields if name not in prompt.reference]
    if missing:
        raise NonsenseError(f"the prompt's reference has no {missing[0]!r}")
    reference = {name: prompt.reference[name] for name in fields}
    try:
        json.dumps(reference, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise NonsenseError(f"the prompt's reference is no JSON: {error}") from error
    return reference


def refused_reference(reference: Mapping[str, Any], fields: Sequence[str]) -> str | None:
    """Why the reference cannot be sent, or None."""
    try:
        wanted_reference(Prompt(id="", text="", token_ids=(), source="", reference=reference), fields)
    except NonsenseError as error:
        return str(error)
    return None


def at(answer: Any, path: str) -> Any:
    """What stands at a dotted path, `choices.0.message` for example; None where nothing does."""
    for key in path.split("."):
        if isinstance(answer, Mapping):
            answer = answer.get(key)
        elif isinstance(answer, list) and key.isdecimal() and int(key) < len(answer):
            answer = answer[int(key)]
        else:
            return None
    return answer


def number(value: Any, what: str, *, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number within bounds; true is 1 and false 0. Raises `NonsenseError`."""
    if not isinstance(value, int | float):
        raise NonsenseError(f"{what} is {shown(value)}, no number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or not least <= found <= most:
        raise NonsenseError(f"{what} is {shown(value)}, outside {least:g} to {most:g}")
    return found


def numbers(value: Any, what: str) -> dict[str, float]:
    """An object of finite numbers, or nothing at all. Raises `NonsenseError`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise NonsenseError(f"{what} is {shown(value)}, no object of numbers")
    return {str(name): number(each, f"{what}.{name}") for name, each in value.items()}


def shown(value: Any) -> str:
    """The beginning of a value, for a reason."""
    return excerpt(json.dumps(value, default=str))
