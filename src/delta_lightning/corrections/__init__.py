"""Rollout corrections: importance weights and masks for the difference between sampler and trainer."""

from delta_lightning.corrections.combined_correction import CombinedCorrection
from delta_lightning.corrections.ice_pop import IcePop
from delta_lightning.corrections.masked_importance import MaskedImportance
from delta_lightning.corrections.no_correction import NoCorrection
from delta_lightning.corrections.normalised_correction import NormalisedCorrection
from delta_lightning.corrections.sequence_masked_importance import SequenceMaskedImportance
from delta_lightning.corrections.sequence_truncated_importance import SequenceTruncatedImportance
from delta_lightning.corrections.statistic_rejection import StatisticRejection
from delta_lightning.corrections.truncated_importance import TruncatedImportance

__all__ = [
    "CombinedCorrection",
    "IcePop",
    "MaskedImportance",
    "NoCorrection",
    "NormalisedCorrection",
    "SequenceMaskedImportance",
    "SequenceTruncatedImportance",
    "StatisticRejection",
    "TruncatedImportance",
]
