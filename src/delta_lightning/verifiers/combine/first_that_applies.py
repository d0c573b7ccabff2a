"""Several ways to find an answer, one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.combine.members import FAILED, Combined, failure


@dataclass(frozen=True, kw_only=True)
class FirstThatApplies(Combined):
    """The verdict of the first member that finds an answer, right or wrong; NO_ANSWER where none does.

    So a wrong answer is not given a second chance by a more lenient member behind. A member that fails (ERROR, UNAVAILABLE,
    TIMEOUT) ends the search, for what it would have said is not known. Every member must be able to use every reference.

    Args:
        members: name -> verifier, at least one; asked in this order.

    Raises:
        ConfigError: no member.
    """

    members: Mapping[str, Verifier]

    def __post_init__(self) -> None:
        require(len(self.members) > 0, "FirstThatApplies.members", wanted="at least one", got={}, remedy="Name a verifier.")

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        reasons = []
        first: Verdict | None = None
        for name, member in self.members.items():
            verdict = member.score(prompt, completion)
            if verdict.status in FAILED:
                return failure(name, verdict)
            if verdict.status is not Status.NO_ANSWER:
                return dataclasses.replace(verdict, reason=f"{name}: {verdict.reason}" if verdict.reason else "")
            first = first or verdict
            reasons.append(f"{name}: {verdict.reason}")
        assert first is not None  # there is a member
        return dataclasses.replace(first, reason="; ".join(reasons))

    def parts(self) -> Mapping[str, Verifier]:
        """The members."""
        return self.members

    def with_parts(self, parts: Mapping[str, Verifier]) -> Self:
        """See `Combined`."""
        return dataclasses.replace(self, members=dict(parts))
