"""The four verdicts of a simple verifier, and short quotations for their reasons."""

from __future__ import annotations

from delta_lightning.types import Status, Verdict

_QUOTED = 80  # characters of an answer that a reason shows


def correct(reward: float = 1.0) -> Verdict:
    """Right."""
    return Verdict(status=Status.CORRECT, reward=reward)


def incorrect(reason: str, reward: float = 0.0) -> Verdict:
    """Wrong, and why."""
    return Verdict(status=Status.INCORRECT, reward=reward, reason=reason)


def no_answer(reason: str) -> Verdict:
    """Nothing to compare, and what was looked for."""
    return Verdict(status=Status.NO_ANSWER, reward=0.0, reason=reason)


def broken(reason: str) -> Verdict:
    """Our failure, which says nothing about the answer: a reference that cannot be used, for example."""
    return Verdict(status=Status.ERROR, reward=0.0, reason=reason)


def quoted(text: object) -> str:
    """A text as one short line."""
    shown = repr(text) if not isinstance(text, str) else repr(text[: _QUOTED + 1])
    return shown if len(shown) <= _QUOTED + 2 else f"{shown[:_QUOTED]}..."
