"""Advantage estimators: from rewards to advantages."""

from delta_lightning.advantages.group_standardised import GroupStandardised

__all__ = ["GroupStandardised"]
