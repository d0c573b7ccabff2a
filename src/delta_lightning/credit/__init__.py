"""Credit assigners: how much each token counts, fixed under theta_old."""

from delta_lightning.credit.clip import Clip
from delta_lightning.credit.column import Column
from delta_lightning.credit.compose import Compose
from delta_lightning.credit.delta import Delta
from delta_lightning.credit.entropy_advantage import EntropyAdvantage
from delta_lightning.credit.entropy_top_k import EntropyTopK
from delta_lightning.credit.flip import Flip
from delta_lightning.credit.grpo_lambda import GRPOLambda
from delta_lightning.credit.gtpo import GTPO
from delta_lightning.credit.ktae import KTAE
from delta_lightning.credit.mask import Mask
from delta_lightning.credit.negative_only import NegativeOnly
from delta_lightning.credit.normalise import Normalise
from delta_lightning.credit.position_decay import PositionDecay
from delta_lightning.credit.positive_only import PositiveOnly
from delta_lightning.credit.random import Random
from delta_lightning.credit.schedule import Schedule
from delta_lightning.credit.sequence_mean import SequenceMean
from delta_lightning.credit.shuffle import Shuffle
from delta_lightning.credit.surprise import Surprise
from delta_lightning.credit.uniform import Uniform

__all__ = [
    "Clip",
    "Column",
    "Compose",
    "Delta",
    "EntropyAdvantage",
    "EntropyTopK",
    "Flip",
    "GRPOLambda",
    "GTPO",
    "KTAE",
    "Mask",
    "NegativeOnly",
    "Normalise",
    "PositionDecay",
    "PositiveOnly",
    "Random",
    "Schedule",
    "SequenceMean",
    "Shuffle",
    "Surprise",
    "Uniform",
]
