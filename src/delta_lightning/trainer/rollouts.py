"""Sampling and verification: prompts in, judged completions out. Verdict statuses are handled here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from delta_lightning.errors import RunError, require
from delta_lightning.interfaces import SamplerSession
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.types import Completion, Prompt, Rollout, SamplingParams, Status, Verdict


@dataclass(frozen=True, kw_only=True)
class VerdictPolicy:
    """What a verdict's status does to the reward and to the batch.

    CORRECT and INCORRECT keep the verifier's reward, NO_ANSWER too; an ERROR never becomes a reward: the completion leaves the
    batch and is counted.

    Args:
        timeout_reward: reward of a completion whose verification timed out.
        max_error_share: share of errors among the verdicts of one step above which the run stops with the first causes.
        timeout_seconds: wall-clock limit of one verdict; its worker process is killed then.
        workers: worker processes of each rank.
    """

    timeout_reward: float = 0.0
    max_error_share: float = 0.1
    timeout_seconds: float = 10.0
    workers: int = 2

    def __post_init__(self) -> None:
        share = self.max_error_share
        require(0 <= share <= 1, "verdicts.max_error_share", wanted="a share in [0, 1]", got=share,
                remedy="0 stops at the first error, 1 never stops.")  # fmt: skip
        require(self.timeout_seconds > 0, "verdicts.timeout_seconds", wanted="more than 0 seconds", got=self.timeout_seconds,
                remedy="10 suits mathematics.")  # fmt: skip
        require(self.workers >= 1, "verdicts.workers", wanted="at least 1", got=self.workers, remedy="Try the number of cores.")


class Judge(Protocol):
    """A pool of verifier processes."""

    def submit(self, key: Hashable, prompt: Prompt, completion: Completion) -> None:
        """Queue one completion; returns at once."""
        ...

    def drain(self, tick: Callable[[int, int], None] | None = None) -> Iterator[tuple[Hashable, Verdict]]:
        """Verdicts of everything submitted, in any order."""
        ...


@dataclass(frozen=True, kw_only=True)
class RolloutTools:
    """What makes rollouts on this rank."""

    session: SamplerSession
    judge: Judge
    policy: VerdictPolicy
    ranks: Ranks
    clock: PhaseClock
    progress: Progress


def collect(
    prompts: Sequence[tuple[int, Prompt]], tools: RolloutTools, *, completions: int, params: SamplingParams, seed: int
) -> list[tuple[int, Rollout]]:
    """`completions` judged answers for each (group id, prompt); each is verified while others are still sampled."""
    groups = {prompt.id: (group, prompt) for group, prompt in prompts}
    answers: dict[Hashable, tuple[int, Prompt, Completion]] = {}
    total = len(prompts) * completions
    with tools.clock("sample"):
        sampled = tools.session.generate([p for _, p in prompts], num_completions=completions, params=params, seed=seed)
        with closing(sampled):  # an interrupt must give the model back
            for completion in sampled:
                group, prompt = groups[completion.prompt_id]
                key = (group, completion.sample_index)
                answers[key] = (group, prompt, completion)
                tools.judge.submit(key, prompt, completion)
                tools.progress("sampling", len(answers), total)
    with tools.clock("verify"):
        verdicts = dict(tools.judge.drain(lambda done, all_: tools.progress("verifying", done, all_)))
    if len(answers) != total:
        raise RunError(f"the sampler gave {len(answers)} completions for {len(prompts)} prompts x {completions}")
    return [
        (group, Rollout(prompt=prompt, completion=completion, verdict=_settled(verdicts[key], tools.policy)))
        for key, (group, prompt, completion) in answers.items()
    ]


def _settled(verdict: Verdict, policy: VerdictPolicy) -> Verdict:
    return replace(verdict, reward=policy.timeout_reward) if verdict.status is Status.TIMEOUT else verdict


def stop_if_broken(rollouts: Sequence[tuple[int, Rollout]], policy: VerdictPolicy, ranks: Ranks) -> None:
    """Raises `RunError`, on every rank, when too many verdicts were errors. Collective."""
    errors = [rollout for _, rollout in rollouts if rollout.verdict.status is Status.ERROR]
    causes = [f"{r.prompt.id}: {r.verdict.reason}" for r in errors[:5]]
    everywhere = ranks.all_objects((len(errors), len(rollouts), causes))
    failed = sum(part[0] for part in everywhere)
    total = sum(part[1] for part in everywhere)
    if failed > policy.max_error_share * total:
        first = "; ".join([cause for part in everywhere for cause in part[2]][:5])
        raise RunError(
            f"the verifier failed on {failed} of {total} completions, more than model.verdicts.max_error_share "
            f"({policy.max_error_share:g}) allows. First causes: {first}"
        )


def rollout_metrics(book: MetricBook, rollouts: Sequence[tuple[int, Rollout]]) -> None:
    """Reward, accuracy, lengths and statuses of judged completions."""
    judged = [rollout for _, rollout in rollouts if rollout.verdict.status is not Status.ERROR]
    book.add("reward/mean", sum(r.verdict.reward for r in judged), len(judged))
    book.add("rollout/accuracy", sum(r.verdict.status is Status.CORRECT for r in judged), len(judged))
    lengths = [len(rollout.completion.token_ids) for _, rollout in rollouts]
    book.add("rollout/completion_tokens", sum(lengths), len(lengths))
    book.maximum("rollout/completion_tokens_max", max(lengths, default=0))
    cut = sum(rollout.completion.finish_reason == "length" for _, rollout in rollouts)
    book.add("rollout/truncated_share", cut, len(rollouts))
    for status in Status:
        count = sum(rollout.verdict.status is status for _, rollout in rollouts)
        book.add(f"verdict/{status.value}_share", count, len(rollouts))
    for name in sorted({name for rollout in judged for name in rollout.verdict.components}):
        book.add(f"reward/component/{name}", sum(r.verdict.components.get(name, 0.0) for r in judged), len(judged))
