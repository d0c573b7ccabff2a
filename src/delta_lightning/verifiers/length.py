"""A price on length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from delta_lightning.errors import require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Verdict
from delta_lightning.verifiers.say import correct, incorrect


@dataclass(frozen=True, kw_only=True)
class LengthPenalty(Verifier):
    """-min(most, rate * (length - free)) for completions longer than `free`, else 0. It reads no reference.

    A part for `WeightedSum`: the penalty is then a component of the reward, with its own mean in the logs, and GDPO
    standardises it by itself. It needs no limit of the sampler's. For DAPO's punishment of answers near the length limit take
    the shaping `SoftOverlong`, which acts on any verifier's reward and is no component.

    Statuses: CORRECT up to `free`, INCORRECT beyond; it says nothing about the answer, so let another member decide.

    Args:
        free: longest completion without a penalty, in units; at least 0.
        rate: penalty for each unit beyond, in units of the reward; finite and at least 0.
        most: largest penalty; finite and at least 0.
        unit: "tokens" of the completion, the end-of-sequence token included, or "characters" of its text.
    """

    free: int = 1024
    rate: float = 0.001
    most: float = 1.0
    unit: Literal["tokens", "characters"] = "tokens"

    def __post_init__(self) -> None:
        require(self.free >= 0, "LengthPenalty.free", wanted="at least 0", got=self.free, remedy="0 charges from the start.")
        for name in ("rate", "most"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"LengthPenalty.{name}", wanted="finite and at least 0", got=value,
                    remedy="It is a price: the reward gets smaller by it.")  # fmt: skip
        require(self.unit in ("tokens", "characters"), "LengthPenalty.unit", wanted="tokens or characters", got=self.unit,
                remedy="Choose one of them.")  # fmt: skip

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        length = len(completion.token_ids) if self.unit == "tokens" else len(completion.text)
        if length <= self.free:
            return correct(0.0)
        reason = f"{length} {self.unit}, {length - self.free} more than {self.free}"
        return incorrect(reason, reward=-min(self.most, self.rate * (length - self.free)))

    def reference_fields(self) -> frozenset[str]:
        """None."""
        return frozenset()
