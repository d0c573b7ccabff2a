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
        require(self.temperature > 0, "model.held_out.temperature", wanted="more than 0", got=self.temperature,
                remedy="1.0 samples from the model's own distribution; 0.01 is as good as greedy.")  # fmt: skip
        require(0 < self.top_p <= 1, "model.held_out.top_p", wanted="a share in (0, 1]", got=self.top_p,
                remedy="1.0 keeps the whole distribution.")  # fmt: skip

    def sampling(self, base: SamplingParams) -> SamplingParams:
        """The run's sampling with these settings; what the run cuts by top-k and min-p is whole again."""
        return replace(base, temperature=self.temperature, top_p=self.top_p, top_k=0, min_p=0.0)


def check_model_config(parts: Parts, plan: Plan) -> None:
    """Refuses sizes and parts that contradict each other. Raises `ConfigError`."""
    _check_sizes(parts, plan)
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
    require_prompts(len(data.train_prompts), plan.cut.num_groups)
    data.check_shares(plan.cut.num_groups)


def require_prompts(size: int, wanted: int) -> None:
    """Refuses a step of `wanted` prompts where there are `size`. Raises `ConfigError`."""
    require(size >= wanted, "model.prompts_per_step", wanted=f"at most {size}, the number of training prompts", got=wanted,
            remedy="Lower it, or give more data.")  # fmt: skip


def check_room(data: PromptData, plan: Plan, context: int | None) -> list[str]:
    """Refuses a limit that no prompt's completions can reach, and a prompt that fills the model's context.

    Returns lines for people: prompts whose completions the context cuts before the limit. Raises `ConfigError`.
    """
    lengths = data.lengths()
    new, shortest, longest = plan.sampling.max_new_tokens, min(lengths), max(lengths)
    if context is None:
        return []
    require(longest < context, "data.max_prompt_tokens", got=longest,
            wanted=f"at most {context - 1}: the model reads {context} tokens and the longest prompt has {longest}",
            remedy="Shorten the prompts, or raise the model's context.")  # fmt: skip
    require(new <= context - shortest, "model.sampling.max_new_tokens", got=new,
            wanted=f"at most {context - shortest}: the model reads {context} tokens and the shortest prompt has {shortest}",
            remedy="Lower it, or raise the model's context.")  # fmt: skip
    less = sum(length + new > context for length in lengths)
    if not less:
        return []
    return [
        f"{less:,} of {len(lengths):,} prompts leave less than max_new_tokens={new} of the model's {context} tokens: their "
        f"completions are cut there, the first after {context - longest} tokens"
    ]


def sampling_notes(sampling: SamplingParams) -> list[str]:
    """Lines for people: what makes the sampled distribution differ from the one that is scored and trained."""
    if not sampling.cuts():
        return []
    return [
        f"sampling with {', '.join(sampling.cuts())}: tokens come from a part of the distribution, while scores, ratios and "
        "mismatch/* are of the whole one at this temperature; a correction compares with the part that was sampled from"
    ]


def _check_sizes(parts: Parts, plan: Plan) -> None:
    cut = plan.cut
    for name, value in (
        ("prompts_per_step", cut.num_groups), ("completions_per_prompt", plan.completions),
        ("updates_per_step", cut.updates), ("micro_batches", cut.micro),
    ):  # fmt: skip
        require(value >= 1, f"model.{name}", wanted="at least 1", got=value, remedy="Raise it.")
    require(
        cut.budget is None or cut.budget >= 1, "model.tokens_per_micro_batch", wanted="at least 1 token, or null",
        got=cut.budget, remedy="16384 is usual on a large GPU; null keeps micro_batches as they are.",
    )  # fmt: skip
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
