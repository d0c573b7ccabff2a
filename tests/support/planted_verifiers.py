"""Verifiers with one defect each, for the laws of verifiers. Nothing heavy is imported here."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, cast

from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.extraction.extraction import Extraction


@dataclass(frozen=True, kw_only=True)
class Honest(Verifier):
    """1 where the completion is the reference."""

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        if self.refuse_reference(prompt.reference) is not None:
            return Verdict(status=Status.ERROR, reward=0.0, reason="no reference")
        right = completion.text == prompt.reference["answer"]
        return Verdict(status=Status.CORRECT if right else Status.INCORRECT, reward=float(right))

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        return None if isinstance(reference.get("answer"), str) else "no text"

    def examples(self) -> tuple[Example, ...]:
        return (Example(reference={"answer": "x", "id": 3}, text="x", status=Status.CORRECT),)


class Raises(Honest):
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        if "\x00" in completion.text:
            raise ValueError("embedded null byte")
        return super().score(prompt, completion)


class Dies(Honest):
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        if len(completion.text) > 500_000:
            os._exit(1)
        return super().score(prompt, completion)


class Drifts(Honest):
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        return (
            Verdict(status=Status.INCORRECT, reward=time.monotonic())
            if completion.text == ""
            else super().score(prompt, completion)
        )


class NotANumber(Honest):
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        return Verdict(status=Status.INCORRECT, reward=0.0, measures={"share": float("inf")})


class Blames(Honest):
    """A missing reference is a wrong answer."""

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        right = completion.text == prompt.reference.get("answer")
        return Verdict(status=Status.CORRECT if right else Status.INCORRECT, reward=float(right))


class Accepts(Honest):
    """Says nothing at load, fails at every answer."""

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        return None if reference.get("answer") is not None else "none"

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        if not isinstance(prompt.reference.get("answer"), str):
            return Verdict(status=Status.ERROR, reward=0.0, reason="not a text")
        return super().score(prompt, completion)


class Careless(Honest):
    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        return None


class Explodes(Honest):
    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        return None if reference["answer"].strip() else "empty"


class Writes(Honest):
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        cast(MutableMapping[str, Any], prompt.reference)["seen"] = True
        return super().score(prompt, completion)


class Undeclared(Honest):
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        if "id" not in prompt.reference:
            return Verdict(status=Status.INCORRECT, reward=0.0)
        return super().score(prompt, completion)


class Wrong(Honest):
    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        return Verdict(status=Status.INCORRECT, reward=0.0)


class NoLimit(Honest):
    def limit_seconds(self) -> float | None:
        return 0.0


class OneLine(Honest):
    def check(self) -> str:
        return "ready"


class Unready(Honest):
    def warm_up(self) -> None:
        if os.environ.get("PYTHONHASHSEED") == "0":  # as in worker processes
            raise ImportError("no such package")


@dataclass(frozen=True, kw_only=True)
class Picky(Verifier):
    """Refuses every reference."""

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        return "not a table"

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        return Verdict(status=Status.CORRECT, reward=1.0)


@dataclass(frozen=True, kw_only=True)
class Second(Extraction):
    """The second word; fails where there is one only."""

    def answer(self, text: str, usable: object) -> str | None:
        return text.split()[1] if text else None


@dataclass(frozen=True, kw_only=True)
class Fragile(Extraction):
    """Fails on a text that a person would not try."""

    def answer(self, text: str, usable: object) -> str | None:
        return text.encode().decode()
