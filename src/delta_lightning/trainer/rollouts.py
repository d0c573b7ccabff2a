"""Sampling and verification: prompts in, judged completions out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from delta_lightning.errors import RunError
from delta_lightning.interfaces import SamplerSession
from delta_lightning.trainer.memory import sampling
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.progress import PhaseClock, Progress
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.verdicts import VerdictPolicy, settled
from delta_lightning.trainer.watchdog import Limits, Watchdog
from delta_lightning.types import Completion, Prompt, Rollout, SamplingParams, Status, Verdict

BY_SOURCE = "rollout/accuracy/"
_CALLS = count()  # in the keys: a verdict that an interrupted call left in the pool must not reach another answer


class Judge(Protocol):
    """A pool of verifier processes."""

    def submit(
        self, key: Hashable, prompt: Prompt, completion: Completion, tick: Callable[[int, int], None] | None = None
    ) -> None:
        """Queue one completion; returns at once unless too much is pending, and calls `tick` while it waits."""
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
    limits: Limits = field(default_factory=Limits)
    watch: Watchdog = field(default_factory=Watchdog)
    inspect: Callable[[Completion], None] = lambda completion: None


def collect(
    prompts: Sequence[tuple[int, Prompt]], tools: RolloutTools, *, completions: int, params: SamplingParams, seed: int
) -> list[tuple[int, Rollout]]:
    """`completions` judged answers for each (group id, prompt); each is verified while others are still sampled.

    Where a run that is stopped has one rank give this up, all ranks end here.
    """
    return tools.progress.together(lambda: _collect(prompts, tools, completions=completions, params=params, seed=seed))


def _collect(
    prompts: Sequence[tuple[int, Prompt]], tools: RolloutTools, *, completions: int, params: SamplingParams, seed: int
) -> list[tuple[int, Rollout]]:
    groups = {prompt.id: (group, prompt) for group, prompt in prompts}
    answers: dict[Hashable, tuple[int, Prompt, Completion]] = {}
    total = len(prompts) * completions
    call = next(_CALLS)

    def verifying(done: int, submitted: int) -> None:
        tools.watch.beat()  # the sampler may be silent for as long as the verifiers hold it back
        tools.progress("verifying", done, submitted)

    with tools.clock("sample"), tools.watch("sampling", tools.limits.sample_seconds), sampling():
        sampled = tools.session.generate([p for _, p in prompts], num_completions=completions, params=params, seed=seed)
        with closing(sampled):  # an interrupt must give the model back
            for completion in sampled:
                tools.watch.beat()
                tools.inspect(completion)
                group, prompt = groups[completion.prompt_id]
                key = (call, group, completion.sample_index)
                answers[key] = (group, prompt, completion)
                tools.judge.submit(key, prompt, completion, verifying)
                tools.progress("sampling", len(answers), total)
    with tools.clock("verify"):
        verdicts = dict(tools.judge.drain(verifying))
    if len(answers) != total:
        raise RunError(f"the sampler gave {len(answers)} completions for {len(prompts)} prompts x {completions}")
    return [
        (group, settled(Rollout(prompt=prompt, completion=completion, verdict=verdicts[key]), tools.policy))
        for key, (group, prompt, completion) in answers.items()
    ]


def rollout_metrics(book: MetricBook, rollouts: Sequence[tuple[int, Rollout]]) -> None:
    """Reward, accuracy, lengths, statuses and the verifier's own measures of judged completions."""
    judged = [rollout for _, rollout in rollouts if rollout.counts]
    book.add("reward/mean", sum(r.verdict.reward for r in judged), len(judged))
    _accuracy(book, judged)
    lengths = [len(rollout.completion.token_ids) for _, rollout in rollouts]
    book.add("rollout/completion_tokens", sum(lengths), len(lengths))
    book.maximum("rollout/completion_tokens_max", max(lengths, default=0))
    cut = sum(rollout.completion.finish_reason == "length" for _, rollout in rollouts)
    book.add("rollout/truncated_share", cut, len(rollouts))
    for status in Status:
        count = sum(rollout.verdict.status is status for _, rollout in rollouts)
        book.add(f"verdict/{status.value}_share", count, len(rollouts))
    book.add("verdict/left_out_share", len(rollouts) - len(judged), len(rollouts))
    for name in sorted({name for rollout in judged for name in rollout.verdict.components}):
        parts = [r.verdict.components[name] for r in judged if name in r.verdict.components]
        book.add(f"reward/component/{name}", sum(parts), len(parts))
    for name in sorted({name for rollout in judged for name in rollout.verdict.measures}):
        values = [r.verdict.measures[name] for r in judged if name in r.verdict.measures]
        book.add(f"verdict/{name}", sum(values), len(values))


def _accuracy(book: MetricBook, judged: Sequence[Rollout]) -> None:
    """Of all, and of each data set by name (left out later where there is one): a mean hides which of them learns."""
    book.add("rollout/accuracy", sum(r.verdict.status is Status.CORRECT for r in judged), len(judged))
    for source in sorted({rollout.prompt.source for rollout in judged}):
        right = [r.verdict.status is Status.CORRECT for r in judged if r.prompt.source == source]
        book.add(BY_SOURCE + source, sum(right), len(right))


def several_sources(values: dict[str, float]) -> dict[str, float]:
    """The values without an accuracy by data set where there is only one, which would repeat `rollout/accuracy`."""
    named = [name for name in values if name.startswith(BY_SOURCE)]
    return values if len(named) > 1 else {name: value for name, value in values.items() if name not in named}


def held_out_metrics(values: dict[str, float]) -> dict[str, float]:
    """Rewards and measures of held-out completions, under the names of an evaluation."""
    kept = {name: value for name, value in several_sources(values).items() if name.startswith(("rollout/", "reward/"))}
    return {f"held_out/{name.split('/', 1)[1]}": value for name, value in kept.items()}
