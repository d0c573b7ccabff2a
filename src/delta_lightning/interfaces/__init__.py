"""The seams: abstract classes of one or two methods, each with its laws.

A part is a frozen, keyword-only dataclass that subclasses its seam. `tests/contract/` holds every part to the laws.
`needs()` is a method and not an attribute: an annotated class attribute on a seam would disable type checks of its parts.
Importing this package does not import torch, so that verifier processes stay light.
"""

from delta_lightning.interfaces.objective import (
    NOTHING,
    AdvantageEstimator,
    CreditAssigner,
    Head,
    Penalty,
    PolicyLoss,
    Reduction,
    RolloutCorrection,
    StepView,
    TokenWeighting,
)
from delta_lightning.interfaces.problems import FilterContext, Keep, ProblemFilter
from delta_lightning.interfaces.rollout import (
    PromptSource,
    RewardShaping,
    RolloutFilter,
    Sampler,
    SamplerContext,
    SamplerSession,
    Verifier,
)

__all__ = [
    "NOTHING",
    "AdvantageEstimator",
    "CreditAssigner",
    "FilterContext",
    "Head",
    "Keep",
    "Penalty",
    "PolicyLoss",
    "ProblemFilter",
    "PromptSource",
    "Reduction",
    "RewardShaping",
    "RolloutCorrection",
    "RolloutFilter",
    "Sampler",
    "SamplerContext",
    "SamplerSession",
    "StepView",
    "TokenWeighting",
    "Verifier",
]
