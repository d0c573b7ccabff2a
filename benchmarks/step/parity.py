"""A reward that a random model earns now and then, the same for every trainer: the number of even characters is even."""

from __future__ import annotations

from dataclasses import dataclass

from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Prompt, Status, Verdict


def parity(text: str) -> float:
    return float(sum(ord(character) % 2 == 0 for character in text) % 2 == 0)


@dataclass(frozen=True, kw_only=True)
class Parity(Verifier):
    """See `parity`."""

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        reward = parity(completion.text)
        return Verdict(status=Status.CORRECT if reward else Status.INCORRECT, reward=reward)
