"""What a config must satisfy as a whole; each part checks its own fields."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from delta_lightning.errors import require
from delta_lightning.trainer.compatibility import check_compatible
from delta_lightning.types import SamplingParams

if TYPE_CHECKING:
    from delta_lightning.trainer.datamodule import PromptData
    from delta_lightning.trainer.step import Parts, Plan


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How held-out prompts are sampled when the policy is evaluated.

    Args:
        completions: answers per prompt; accuracy is their mean.
        temperature: > 0. top_p: in (0, 1].
    """

    completions: int = 1
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        require(self.completions >= 1, "held_out.completions", wanted="at least 1", got=self.completions, remedy="Raise it.")
        _check_distribution(self.temperature, self.top_p, "model.held_out")

    def sampling(self, base: SamplingParams) -> SamplingParams:
        """The run's sampling with these settings."""
        return replace(base, temperature=self.temperature, top_p=self.top_p, top_k=0)


def check_model_config(parts: Parts, plan: Plan, *, max_grad_norm: float) -> None:
    """Refuses sizes and parts that contradict each other. Raises `ConfigError`."""
    _check_sizes(parts, plan)
    _check_sampling(plan.sampling)
    require(
        max_grad_norm >= 0, "model.max_grad_norm", wanted="0 (no clipping) or more", got=max_grad_norm, remedy="1.0 is usual."
    )
    check_compatible(parts)
    require(
        plan.refill_rounds >= 0,
        "model.refill_rounds",
        wanted="at least 0",
        got=plan.refill_rounds,
        remedy="0 turns refill off.",
    )
    require(
        plan.refill_rounds == 0 or bool(parts.filters), "model.refill_rounds",
        wanted="0 without filters, since nothing drops a group", got=plan.refill_rounds,
        remedy="Add a filter such as ZeroVariance (dynamic sampling), or set 0.",
    )  # fmt: skip


def check_prompt_count(data: PromptData, plan: Plan) -> None:
    """Refuses fewer training prompts than a step takes. Raises `ConfigError`."""
    size, wanted = len(data.train_prompts), plan.cut.num_groups
    require(size >= wanted, "model.prompts_per_step", wanted=f"at most {size}, the number of training prompts", got=wanted,
            remedy="Lower it, or give more data.")  # fmt: skip


def check_room(data: PromptData, plan: Plan, context: int | None) -> None:
    """Refuses prompts that leave no room for a completion in the model's context. Raises `ConfigError`."""
    longest = max(len(prompt.token_ids) for prompt in [*data.train_prompts, *data.validation_prompts])
    room, new = (context or longest + plan.sampling.max_new_tokens) - longest, plan.sampling.max_new_tokens
    require(new <= room, "model.sampling.max_new_tokens", got=new,
            wanted=f"at most {room}: the model reads {context} tokens and the longest prompt has {longest}",
            remedy="Lower it, or lower data.max_prompt_tokens, or raise the model's context.")  # fmt: skip


def _check_sizes(parts: Parts, plan: Plan) -> None:
    cut = plan.cut
    for name, value in (
        ("prompts_per_step", cut.num_groups), ("completions_per_prompt", plan.completions),
        ("updates_per_step", cut.updates), ("micro_batches", cut.micro),
    ):  # fmt: skip
        require(value >= 1, f"model.{name}", wanted="at least 1", got=value, remedy="Raise it.")
    fewest = parts.advantage.min_completions()
    require(
        plan.completions >= fewest, "model.completions_per_prompt",
        wanted=f"at least {fewest} for {type(parts.advantage).__name__}, which compares answers within a group",
        got=plan.completions, remedy="Raise it (8 or 16 are usual), or choose an estimator without a group baseline.",
    )  # fmt: skip
    require(
        cut.num_groups % cut.updates == 0, "model.prompts_per_step",
        wanted=f"a multiple of updates_per_step ({cut.updates}), since groups are not split over updates",
        got=cut.num_groups, remedy=f"Try {-(-cut.num_groups // cut.updates) * cut.updates}.",
    )  # fmt: skip


def _check_distribution(temperature: float, top_p: float, where: str) -> None:
    require(temperature > 0, f"{where}.temperature", wanted="more than 0", got=temperature,
            remedy="1.0 samples from the model's own distribution; 0.01 is as good as greedy.")  # fmt: skip
    require(0 < top_p <= 1, f"{where}.top_p", wanted="a share in (0, 1]", got=top_p,
            remedy="1.0 keeps the whole distribution.")  # fmt: skip


def _check_sampling(sampling: SamplingParams) -> None:
    _check_distribution(sampling.temperature, sampling.top_p, "model.sampling")
    require(sampling.top_k >= 0, "model.sampling.top_k", wanted="0 (all tokens) or more", got=sampling.top_k, remedy="Use 0.")
    require(sampling.max_new_tokens >= 1, "model.sampling.max_new_tokens", wanted="at least 1", got=sampling.max_new_tokens,
            remedy="The paper uses 20480.")  # fmt: skip
