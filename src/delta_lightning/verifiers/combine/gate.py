"""One verifier only behind another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.combine.members import FAILED, Combined, failure, measured


@dataclass(frozen=True, kw_only=True)
class Gate(Combined):
    """The verdict of `then` where `first` says CORRECT, else the verdict of `first`: form before content.

    What stands behind a closed gate is not asked, so a costly judge or a sandbox runs only for completions in good form. The
    gate's own reward counts only where it is closed (0 for most verifiers). Both rewards are components, `first` and `then`,
    the latter 0 behind a closed gate. A failure (ERROR, UNAVAILABLE, TIMEOUT) of either is the whole's.

    Args:
        first: the gate, for example `RegexFormat`.
        then: what judges behind it.
    """

    first: Verifier
    then: Verifier

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        gate = self.first.score(prompt, completion)
        if gate.status in FAILED:
            return failure("first", gate)
        if gate.status is not Status.CORRECT:
            return dataclasses.replace(gate, components={"first": gate.reward, "then": 0.0}, reason=f"first: {gate.reason}",
                                       token_weights=None, measures=measured({"first": gate}))  # fmt: skip
        verdict = self.then.score(prompt, completion)
        if verdict.status in FAILED:
            return failure("then", verdict)
        return dataclasses.replace(verdict, components={"first": gate.reward, "then": verdict.reward},
                                   measures=measured({"first": gate, "then": verdict}))  # fmt: skip

    def parts(self) -> Mapping[str, Verifier]:
        """`first` and `then`."""
        return {"first": self.first, "then": self.then}

    def with_parts(self, parts: Mapping[str, Verifier]) -> Self:
        """See `Combined`."""
        return dataclasses.replace(self, first=parts["first"], then=parts["then"])
