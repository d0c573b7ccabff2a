"""Verifiers that say what they are told, for the tests of combinators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict

ASKED: list[str] = []
WARMED: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Says(Verifier):
    """Always the same verdict.

    Args:
        name: of this one. status, reward: of its verdicts. reads: its reference field, refused where it holds "bad".
        limit: its own limit. weights, measures: of its verdicts. here: whether it works on this machine.
        deeper: where its route leads.
    """

    name: str = "a"
    status: str = "correct"
    reward: float = 1.0
    reads: str = "answer"
    limit: float | None = None
    weights: tuple[float, ...] | None = None
    measures: tuple[tuple[str, float], ...] = ()
    here: bool = True
    deeper: str = ""

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        ASKED.append(self.name)
        return Verdict(status=Status(self.status), reward=self.reward, reason=f"says {self.name}", token_weights=self.weights,
                       measures=dict(self.measures), components={"own": 3.0})  # fmt: skip

    def reference_fields(self) -> frozenset[str]:
        return frozenset({self.reads})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        return "it is bad" if reference.get(self.reads) == "bad" else None

    def check(self) -> Sequence[str]:
        if not self.here:
            raise ConfigError("sandbox", wanted="one", got="none", remedy="Install it.")
        return (f"line of {self.name}",)

    def limit_seconds(self) -> float | None:
        return self.limit

    def route(self, source: str) -> Verifier:
        return Says(name=f"{self.deeper}:{source}") if self.deeper else self

    def warm_up(self) -> None:
        WARMED.append(self.name)
