"""Advantage estimators: from rewards to advantages."""

from delta_lightning.advantages.gdpo import GDPO
from delta_lightning.advantages.gpg import GPG
from delta_lightning.advantages.group_centred import GroupCentred
from delta_lightning.advantages.group_standardised import GroupStandardised
from delta_lightning.advantages.leave_one_out import LeaveOneOut
from delta_lightning.advantages.max_rl import MaxRL
from delta_lightning.advantages.optimal_baseline import OptimalBaseline
from delta_lightning.advantages.optimal_token_baseline import OptimalTokenBaseline
from delta_lightning.advantages.pass_at_k import PassAtK
from delta_lightning.advantages.reinforce_plus_plus import ReinforcePlusPlus
from delta_lightning.advantages.reinforce_plus_plus_baseline import ReinforcePlusPlusBaseline

__all__ = [
    "GDPO",
    "GPG",
    "GroupCentred",
    "GroupStandardised",
    "LeaveOneOut",
    "MaxRL",
    "OptimalBaseline",
    "OptimalTokenBaseline",
    "PassAtK",
    "ReinforcePlusPlus",
    "ReinforcePlusPlusBaseline",
]
