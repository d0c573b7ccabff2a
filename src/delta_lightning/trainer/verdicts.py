"""What becomes of a verdict: its status decided here, in one place, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

from delta_lightning.errors import RunError, require
from delta_lightning.types import Rollout, Status, Verdict

Item = TypeVar("Item")

FAILED = {Status.ERROR: "max_error_share", Status.UNAVAILABLE: "max_unavailable_share"}  # never a reward
_SPARE = 1.0  # seconds that the pool's limit must leave above the verifier's own
_NAMED = 5  # causes in a message


class Gathering(Protocol):
    """What is needed of the ranks. Not their class: `delta-lightning verify` reads this file, and starts without torch."""

    def all_objects(self, value: Item) -> list[Item]:
        """One object per rank, on every rank."""
        ...


@dataclass(frozen=True, kw_only=True)
class VerdictPolicy:
    """What a verdict's status does to the reward and to the batch.

    CORRECT and INCORRECT keep the verifier's reward. ERROR (the verifier failed) and UNAVAILABLE (the service behind it is
    away) never become a reward: the completion leaves the batch, is counted, and past a share of the step's verdicts the run
    stops with the first causes. The others are settled by the fields.

    Args:
        no_answer: "keep" the verifier's reward, "leave" the batch, or a reward.
        timeout: a reward for completions whose verification timed out, or "leave" the batch.
        max_error_share: share of ERROR among the verdicts of one step above which the run stops.
        max_unavailable_share: the same for UNAVAILABLE.
        timeout_seconds: wall-clock limit of one verdict; its worker process is killed then.
        workers: worker processes of each rank.
    """

    no_answer: float | Literal["keep", "leave"] = "keep"
    timeout: float | Literal["leave"] = 0.0
    max_error_share: float = 0.1
    max_unavailable_share: float = 0.5
    timeout_seconds: float = 10.0
    workers: int = 2

    def __post_init__(self) -> None:
        for name in FAILED.values():
            share = getattr(self, name)
            require(0 <= share <= 1, f"verdicts.{name}", wanted="a share in [0, 1]", got=share,
                    remedy="0 stops at the first one, 1 never stops.")  # fmt: skip
        for name, words in (("no_answer", ("keep", "leave")), ("timeout", ("leave",))):
            value = getattr(self, name)
            usable = value in words if isinstance(value, str) else math.isfinite(value)
            require(usable, f"verdicts.{name}", wanted=" or ".join(("a finite number", *words)),
                    got=value, remedy="Choose one of them.")  # fmt: skip
        require(self.timeout_seconds > 0, "verdicts.timeout_seconds", wanted="more than 0 seconds", got=self.timeout_seconds,
                remedy="10 suits mathematics.")  # fmt: skip
        require(self.workers >= 1, "verdicts.workers", wanted="at least 1", got=self.workers, remedy="Try the number of cores.")

    def check_limit(self, own: float | None) -> None:
        """Refuse a limit that would kill a verifier before its own time limits speak.

        Args:
            own: `Verifier.limit_seconds()`. Raises `ConfigError`.
        """
        require(own is None or own + _SPARE <= self.timeout_seconds, "model.verdicts.timeout_seconds",
                wanted=f"at least {(own or 0.0) + _SPARE:g} seconds, {_SPARE:g} above the verifier's own limits",
                got=self.timeout_seconds, remedy="Raise it, or lower the verifier's limits.")  # fmt: skip


def settled(rollout: Rollout, policy: VerdictPolicy) -> Rollout:
    """The rollout with the reward that its status earns, or marked as one that does not count."""
    verdict = rollout.verdict
    if verdict.status in FAILED:
        return replace(rollout, counts=False)
    rule: float | str = {Status.NO_ANSWER: policy.no_answer, Status.TIMEOUT: policy.timeout}.get(verdict.status, "keep")
    if rule == "leave":
        return replace(rollout, counts=False)
    if isinstance(rule, str):
        return rollout
    # What a component was worth went with the verdict's own reward: estimators that read components must see the rule too.
    return replace(rollout, verdict=replace(verdict, reward=rule, components=dict.fromkeys(verdict.components, rule)))


def component(verdict: Verdict, name: str) -> float:
    """A named part of the reward. A verdict without parts (a timeout, a data set that has none) has its reward in each."""
    return verdict.components.get(name, 0.0) if verdict.components else verdict.reward


def stop_if_broken(rollouts: Sequence[tuple[int, Rollout]], policy: VerdictPolicy, ranks: Gathering) -> None:
    """Raises `RunError`, on every rank, when too many verdicts failed. Collective."""
    mine = [(r.verdict.status, f"{r.prompt.id}: {r.verdict.reason}") for _, r in rollouts if r.verdict.status in FAILED]
    everywhere = ranks.all_objects((mine, len(rollouts)))
    total = sum(count for _, count in everywhere)
    for status, setting in FAILED.items():
        causes = [cause for failed, _ in everywhere for kind, cause in failed if kind is status]
        share = getattr(policy, setting)
        if len(causes) > share * total:
            what = "failed on" if status is Status.ERROR else "could not reach its service for"
            raise RunError(
                f"the verifier {what} {len(causes)} of {total} completions, more than model.verdicts.{setting} "
                f"({share:g}) allows. First causes: {'; '.join(causes[:_NAMED])}"
            )
