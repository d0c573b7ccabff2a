"""The laws of `delta_lightning.interfaces` as checks: each takes a part and raises `AssertionError` where it breaks one.

They hold for every part, so they compare a part with itself under changes that must not matter; that its numbers are the
right ones is for the part's own tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import GradientProxy
from delta_lightning.interfaces import (
    AdvantageEstimator,
    CreditAssigner,
    Penalty,
    PolicyLoss,
    ProblemFilter,
    Reduction,
    RewardShaping,
    RolloutCorrection,
    RolloutFilter,
    TokenWeighting,
    Verifier,
)
from delta_lightning.testing.compare import TOLERANCE, check_tensor, close
from delta_lightning.testing.parts import SEAMS, check_part, concrete_parts, seam_of
from delta_lightning.testing.problem_laws import check_problem_filter
from delta_lightning.testing.step_laws import (
    CUTS,
    check_advantage,
    check_correction,
    check_credit,
    check_filter,
    check_shaping,
    check_step_part,
)
from delta_lightning.testing.update_laws import at_log_ratio, check_loss, check_penalty, check_reduction, check_weighting, drift
from delta_lightning.testing.verifier_laws import check_extraction, check_verifier
from delta_lightning.types import Example
from delta_lightning.verifiers.extraction.extraction import Extraction


def check_proxy(part: GradientProxy) -> None:
    """The laws of credit, for DelTA with this proxy."""
    check_credit(Delta(proxy=part))


CHECKS: dict[type, Callable[[Any], None]] = {
    AdvantageEstimator: check_advantage,
    CreditAssigner: check_credit,
    Extraction: check_extraction,
    GradientProxy: check_proxy,
    Penalty: check_penalty,
    PolicyLoss: check_loss,
    ProblemFilter: check_problem_filter,
    Reduction: check_reduction,
    RewardShaping: check_shaping,
    RolloutCorrection: check_correction,
    RolloutFilter: check_filter,
    TokenWeighting: check_weighting,
    Verifier: check_verifier,
}


def check(part: Any, examples: Sequence[Example] = ()) -> None:
    """Hold an instance to the laws of its seam. Raises `AssertionError` with what broke, `TypeError` without a seam.

    Args:
        part: the instance. examples: for a verifier, what it is tried with, instead of what it brings itself.
    """
    seam = seam_of(type(part))
    if seam is Verifier:
        check_verifier(part, examples)
    elif seam in CHECKS:
        CHECKS[seam](part)


__all__ = [
    "CHECKS", "CUTS", "SEAMS", "TOLERANCE", "at_log_ratio", "check", "check_advantage", "check_correction",
    "check_credit", "check_extraction", "check_filter", "check_loss", "check_part", "check_penalty",
    "check_problem_filter", "check_proxy",
    "check_reduction", "check_shaping", "check_step_part", "check_tensor", "check_verifier", "check_weighting", "close",
    "concrete_parts", "drift", "seam_of",
]  # fmt: skip
