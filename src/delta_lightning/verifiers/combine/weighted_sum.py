"""Several verifiers at once, their rewards added."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Verdict
from delta_lightning.verifiers.combine.members import FAILED, Combined, failure, measured


@dataclass(frozen=True, kw_only=True)
class WeightedSum(Combined):
    """reward = sum over members of weight * reward. Each member's own reward, without its weight, is a component.

    So metrics show each member's mean (`reward/component/<member>`), and GDPO standardises each member by itself, with
    weights of its own. Measures are logged as `verdict/<member>/<measure>`. One member, `decides`, says whether the answer
    is CORRECT, INCORRECT or no answer; token weights, if any, are its own. A member that fails (ERROR, UNAVAILABLE, TIMEOUT)
    makes its status that of the whole, and those after it are not asked: half a sum is no reward.

    Args:
        members: name -> verifier, at least one; asked in this order.
        weights: name -> weight, finite; members that are not named have weight 1.
        decides: name of the member whose status is the whole's; None for the first.

    Raises:
        ConfigError: no member, or a name that no member has.
    """

    members: Mapping[str, Verifier]
    weights: Mapping[str, float] = field(default_factory=dict)
    decides: str | None = None

    def __post_init__(self) -> None:
        require(len(self.members) > 0, "WeightedSum.members", wanted="at least one", got={}, remedy="Name a verifier.")
        names = ", ".join(self.members)
        unknown = sorted(set(self.weights) - set(self.members))
        require(not unknown, "WeightedSum.weights", wanted=f"names among {names}", got=", ".join(unknown),
                remedy="Weights belong to members.")  # fmt: skip
        require(all(math.isfinite(weight) for weight in self.weights.values()), "WeightedSum.weights", wanted="finite numbers",
                got=dict(self.weights), remedy="For example {answer: 1.0, format: 0.1}.")  # fmt: skip
        require(self.decides is None or self.decides in self.members, "WeightedSum.decides", wanted=f"one of {names}",
                got=self.decides, remedy="Name the member that knows whether the answer is right.")  # fmt: skip

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        verdicts: dict[str, Verdict] = {}
        for name, member in self.members.items():
            verdicts[name] = member.score(prompt, completion)
            if verdicts[name].status in FAILED:
                return failure(name, verdicts[name])
        deciding = verdicts[self.decides or next(iter(self.members))]
        return Verdict(
            status=deciding.status,
            reward=math.fsum(self.weights.get(name, 1.0) * verdict.reward for name, verdict in verdicts.items()),
            components={name: verdict.reward for name, verdict in verdicts.items()},
            reason="; ".join(f"{name}: {verdict.reason}" for name, verdict in verdicts.items() if verdict.reason),
            token_weights=deciding.token_weights,
            measures=measured(verdicts),
        )

    def parts(self) -> Mapping[str, Verifier]:
        """The members."""
        return self.members

    def with_parts(self, parts: Mapping[str, Verifier]) -> Self:
        """See `Combined`."""
        return dataclasses.replace(self, members=dict(parts))
