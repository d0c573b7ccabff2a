from __future__ import annotations

from dataclasses import replace

import pytest

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollouts import rollout_metrics, several_sources
from delta_lightning.trainer.verdicts import VerdictPolicy, component, settled, stop_if_broken
from delta_lightning.types import Rollout, Status, Verdict
from support.verdicts import completion_of, prompt_with


def judged(status: Status, reward: float = 0.25, source: str = "test") -> Rollout:
    prompt = replace(prompt_with("42"), source=source)
    return Rollout(prompt=prompt, completion=completion_of("x"), verdict=Verdict(status=status, reward=reward, reason="why"))


@pytest.mark.parametrize(
    ("policy", "status", "reward"),
    [
        (VerdictPolicy(), Status.CORRECT, 0.25),
        (VerdictPolicy(), Status.INCORRECT, 0.25),
        (VerdictPolicy(), Status.NO_ANSWER, 0.25),
        (VerdictPolicy(no_answer=-1.0), Status.NO_ANSWER, -1.0),
        (VerdictPolicy(no_answer="leave"), Status.NO_ANSWER, None),
        (VerdictPolicy(), Status.TIMEOUT, 0.0),
        (VerdictPolicy(timeout=-0.5), Status.TIMEOUT, -0.5),
        (VerdictPolicy(timeout="leave"), Status.TIMEOUT, None),
        (VerdictPolicy(), Status.ERROR, None),
        (VerdictPolicy(), Status.UNAVAILABLE, None),
    ],
)
def test_each_status(policy: VerdictPolicy, status: Status, reward: float | None) -> None:
    after = settled(judged(status), policy)
    assert after.counts == (reward is not None)
    assert reward is None or after.verdict.reward == reward


def test_a_configured_reward_is_that_of_every_component() -> None:
    missing = replace(
        judged(Status.NO_ANSWER), verdict=Verdict(status=Status.NO_ANSWER, reward=0.5, components={"a": 1.0, "b": 0.0})
    )
    assert settled(missing, VerdictPolicy()).verdict.components == {"a": 1.0, "b": 0.0}
    assert settled(missing, VerdictPolicy(no_answer=-1.0)).verdict.components == {"a": -1.0, "b": -1.0}
    late = settled(judged(Status.TIMEOUT), VerdictPolicy(timeout=-2.0)).verdict
    assert [component(late, name) for name in "ab"] == [-2.0, -2.0]


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_configured_reward_is_finite(reward: float) -> None:
    with pytest.raises(ConfigError, match=r"verdicts\.timeout"):
        VerdictPolicy(timeout=reward)
    with pytest.raises(ConfigError, match=r"verdicts\.no_answer"):
        VerdictPolicy(no_answer=reward)


def test_a_components_mean_is_over_those_that_have_it() -> None:
    book = MetricBook()
    named = replace(judged(Status.CORRECT), verdict=Verdict(status=Status.CORRECT, reward=1.0, components={"form": 0.5}))
    rollout_metrics(book, [(0, named), (0, judged(Status.CORRECT, 1.0, "another")), (0, judged(Status.TIMEOUT, 0.0))])
    assert book.take(Ranks())["reward/component/form"] == 0.5


@pytest.mark.parametrize(
    "fields",
    [{"no_answer": "skip"}, {"timeout": "keep"}, {"max_error_share": 1.5}, {"max_unavailable_share": -0.1},
     {"timeout_seconds": 0.0}, {"workers": 0}],
)  # fmt: skip
def test_refusals(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        VerdictPolicy(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "setting"), [(Status.ERROR, "max_error_share"), (Status.UNAVAILABLE, "max_unavailable_share")]
)
def test_too_many_failures_stop_the_run_with_five_causes(status: Status, setting: str) -> None:
    rollouts = [(0, judged(status)) for _ in range(7)] + [(0, judged(Status.CORRECT)) for _ in range(3)]
    with pytest.raises(RunError, match=f"7 of 10 completions, more than model.verdicts.{setting}") as stopped:
        stop_if_broken(rollouts, VerdictPolicy(), Ranks())
    assert str(stopped.value).count("why") == 5
    stop_if_broken(rollouts, VerdictPolicy(max_error_share=0.7, max_unavailable_share=0.7), Ranks())


def test_a_limit_below_the_verifiers_own_is_refused() -> None:
    policy = VerdictPolicy(timeout_seconds=10.0)
    policy.check_limit(None)
    policy.check_limit(9.0)
    with pytest.raises(ConfigError, match=r"at least 10\.5 seconds"):
        policy.check_limit(9.5)


def test_metrics_count_what_counts() -> None:
    book = MetricBook()
    measured = replace(
        judged(Status.CORRECT, 1.0, "b"), verdict=Verdict(status=Status.CORRECT, reward=1.0, measures={"passed_share": 0.5})
    )
    rollouts = [judged(Status.CORRECT, 1.0, "a"), judged(Status.INCORRECT, 0.0, "a"), measured, judged(Status.ERROR, 9.0, "a")]
    rollout_metrics(book, [(0, settled(rollout, VerdictPolicy())) for rollout in rollouts])
    values = book.take(Ranks())
    assert values["reward/mean"] == pytest.approx(2 / 3)
    assert (values["rollout/accuracy/a"], values["rollout/accuracy/b"]) == (0.5, 1.0)
    assert values["verdict/left_out_share"] == values["verdict/error_share"] == 0.25
    assert values["verdict/passed_share"] == 0.5


def test_one_source_is_not_named() -> None:
    alone = {"rollout/accuracy": 0.5, "rollout/accuracy/a": 0.5}
    assert several_sources(alone) == {"rollout/accuracy": 0.5}
    both = {"rollout/accuracy/a": 0.5, "rollout/accuracy/b": 0.5}
    assert several_sources(both) == both
