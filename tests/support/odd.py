"""A verifier with signal on random text: right if the sum of the sampled token ids is odd."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict


@dataclass(frozen=True, kw_only=True)
class OddSum(Verifier):
    """Right if the sum of the token ids is odd."""

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        odd = sum(completion.token_ids) % 2 == 1
        return Verdict(status=Status.CORRECT if odd else Status.INCORRECT, reward=float(odd))
