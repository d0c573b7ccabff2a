"""Each data set its own verifier, so that one batch may mix them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Verdict
from delta_lightning.verifiers.combine.members import checked
from delta_lightning.verifiers.say import broken


@dataclass(frozen=True, kw_only=True)
class BySource(Verifier):
    """The verdict of the verifier that belongs to the problem's data set; a batch may mix mathematics and code.

    Each problem's reference is checked by its own verifier, when the data loads; a data set that has none is refused then. With
    members of a very different pace, the pool's limit must fit the slowest.

    Args:
        verifiers: name of the data set, as the problems carry it (`Mixture`'s names) -> verifier; at least one.
        default: for every other data set; None refuses them.

    Raises:
        ConfigError: no verifier.
    """

    verifiers: Mapping[str, Verifier]
    default: Verifier | None = None

    def __post_init__(self) -> None:
        require(len(self.verifiers) > 0, "BySource.verifiers", wanted="at least one", got={}, remedy="Name the data sets.")

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class. ERROR for a data set without a verifier."""
        chosen = self.verifiers.get(prompt.source, self.default)
        if chosen is None:
            return broken(f"no verifier for the data set {prompt.source!r}")
        return chosen.score(prompt, completion)

    def route(self, source: str) -> Verifier:
        """The data set's verifier. Raises `ConfigError`, with the known names, for one without."""
        chosen = self.verifiers.get(source, self.default)
        if chosen is None:
            known = ", ".join(self.verifiers)
            raise ConfigError("BySource.verifiers", wanted=f"an entry for every data set; there are {known}",
                              got=f"problems of {source!r}", remedy="Add it, or set default.")  # fmt: skip
        return chosen.route(source)

    def reference_fields(self) -> frozenset[str]:
        """What any of them reads; ask `route(source)` for those of one data set."""
        return frozenset[str]().union(*(verifier.reference_fields() for verifier in self._all().values()))

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """Why none of them can use it; ask `route(source)` for the one that must."""
        reasons = []
        for name, verifier in self._all().items():
            reason = verifier.refuse_reference(reference)
            if reason is None:
                return None
            reasons.append(f"{name}: {reason}")
        return "; ".join(reasons)

    def check(self) -> Sequence[str]:
        """Every member's lines, each with its data set. Raises `ConfigError`."""
        return checked(self._all())

    def limit_seconds(self) -> float | None:
        """The longest of theirs: a completion meets one of them."""
        return max(
            (limit for verifier in self._all().values() if (limit := verifier.limit_seconds()) is not None), default=None
        )

    def warm_up(self) -> None:
        """Every member's."""
        for verifier in self._all().values():
            verifier.warm_up()

    def examples(self) -> tuple[Example, ...]:
        """Those that the verifiers bring, each for its data set."""
        return tuple(
            Example(reference=example.reference, text=example.text, status=example.status, source=name)
            for name, verifier in self.verifiers.items()
            for example in verifier.examples()
        )

    def _all(self) -> dict[str, Verifier]:
        return dict(self.verifiers) if self.default is None else {**self.verifiers, "default": self.default}
