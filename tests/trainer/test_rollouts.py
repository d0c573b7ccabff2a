from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

import pytest
from torch import Tensor

from delta_lightning.interfaces import SamplerSession
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import RolloutTools, collect
from delta_lightning.trainer.verdicts import VerdictPolicy
from delta_lightning.types import Completion, Prompt, SamplingParams, Status, SyncReceipt, Verdict
from support.engines import InlineJudge
from support.verdicts import completion_of, prompt_with


class StopSamplingError(Exception):
    pass


class Session(SamplerSession):
    """Gives one text, then, if told so, is interrupted."""

    def __init__(self, text: str, interrupted: bool) -> None:
        self.text, self.interrupted = text, interrupted

    def generate(self, prompts: Sequence[Prompt], **options: Any) -> Generator[Completion, None, None]:
        yield completion_of(self.text)
        if self.interrupted:
            raise StopSamplingError

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        raise NotImplementedError

    def update_weights(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> SyncReceipt:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def test_verdicts_left_by_an_interrupted_call_do_not_reach_the_next() -> None:
    judge = InlineJudge(lambda prompt, answer: Verdict(status=Status.CORRECT, reward=float(answer.text)))

    def rewards(session: Session) -> list[float]:
        tools = RolloutTools(
            session=session, judge=judge, policy=VerdictPolicy(), ranks=Ranks(), clock=PhaseClock(), progress=Progress()
        )
        found = collect([(0, prompt_with("1"))], tools, completions=1, params=SamplingParams(), seed=0)
        return [rollout.verdict.reward for _, rollout in found]

    with pytest.raises(StopSamplingError):
        rewards(Session("7", interrupted=True))
    judge.verdicts.reverse()
    assert rewards(Session("1", interrupted=False)) == [1.0]
