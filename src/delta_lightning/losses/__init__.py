"""Policy losses, token weightings, penalties and reductions."""

from delta_lightning.losses.cispo import CISPO
from delta_lightning.losses.clip_cov import ClipCov
from delta_lightning.losses.clipped_surrogate import ClippedSurrogate
from delta_lightning.losses.constant import Constant
from delta_lightning.losses.constant_length import ConstantLength
from delta_lightning.losses.dppo import DPPO
from delta_lightning.losses.entropy_bonus import EntropyBonus
from delta_lightning.losses.entropy_top_k_dynamic import EntropyTopKDynamic
from delta_lightning.losses.fipo import FIPO
from delta_lightning.losses.gmpo import GMPO
from delta_lightning.losses.gspo import GSPO
from delta_lightning.losses.gspo_token import GSPOToken
from delta_lightning.losses.kl import KL
from delta_lightning.losses.kl_cov import KLCov
from delta_lightning.losses.luspo import LUSPO
from delta_lightning.losses.reinforce import Reinforce
from delta_lightning.losses.sapo import SAPO
from delta_lightning.losses.sequence_mean import SequenceMean
from delta_lightning.losses.sequence_sum import SequenceSum
from delta_lightning.losses.token_mean import TokenMean
from delta_lightning.losses.vespo import VESPO
from delta_lightning.losses.weighted_mean import WeightedMean

__all__ = [
    "CISPO",
    "ClipCov",
    "ClippedSurrogate",
    "Constant",
    "ConstantLength",
    "DPPO",
    "EntropyBonus",
    "EntropyTopKDynamic",
    "FIPO",
    "GMPO",
    "GSPO",
    "GSPOToken",
    "KL",
    "KLCov",
    "LUSPO",
    "Reinforce",
    "SAPO",
    "SequenceMean",
    "SequenceSum",
    "TokenMean",
    "VESPO",
    "WeightedMean",
]
