"""What verifiers made of other verifiers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Status, Verdict

FAILED = (Status.ERROR, Status.UNAVAILABLE, Status.TIMEOUT)  # say nothing about the answer, so nothing can be built on them


@dataclass(frozen=True, kw_only=True)
class Combined(Verifier):
    """A verifier whose members all judge the same problem; what it needs, and may take, is what they do together."""

    @abstractmethod
    def parts(self) -> Mapping[str, Verifier]:
        """The members by name, in the order in which they are asked."""

    @abstractmethod
    def with_parts(self, parts: Mapping[str, Verifier]) -> Self:
        """A copy with other members, of the same names in the same order."""

    def reference_fields(self) -> frozenset[str]:
        """What any member reads."""
        return frozenset[str]().union(*(member.reference_fields() for member in self.parts().values()))

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """The first member's reason against it."""
        for name, member in self.parts().items():
            reason = member.refuse_reference(reference)
            if reason is not None:
                return f"{name}: {reason}"
        return None

    def check(self) -> Sequence[str]:
        """Every member's lines, each with its name in front. Raises `ConfigError`, with the member's name."""
        return checked(self.parts())

    def limit_seconds(self) -> float | None:
        """The sum of the members' limits: they are asked one after the other."""
        limits = [limit for member in self.parts().values() if (limit := member.limit_seconds()) is not None]
        return sum(limits) if limits else None

    def route(self, source: str) -> Verifier:
        """Itself, its members being those for that data set."""
        return self.with_parts({name: member.route(source) for name, member in self.parts().items()})

    def warm_up(self) -> None:
        """Every member's."""
        for member in self.parts().values():
            member.warm_up()


def checked(parts: Mapping[str, Verifier]) -> tuple[str, ...]:
    """What the members' `check` says, each line with its member's name. Raises `ConfigError`, with the member's name."""
    lines: list[str] = []
    for name, member in parts.items():
        try:
            lines += [f"{name}: {line}" for line in member.check()]
        except ConfigError as error:
            raise ConfigError(f"{name}: {error.what}", wanted=error.wanted, got=error.got, remedy=error.remedy) from error
    return tuple(lines)


def failure(name: str, verdict: Verdict) -> Verdict:
    """A member's failure as the failure of the whole: its status, no reward, its name before its reason."""
    return Verdict(status=verdict.status, reward=0.0, reason=f"{name}: {verdict.reason}")


def measured(verdicts: Mapping[str, Verdict]) -> dict[str, float]:
    """The members' measures, each as "member/measure"."""
    return {f"{name}/{key}": value for name, verdict in verdicts.items() for key, value in verdict.measures.items()}
