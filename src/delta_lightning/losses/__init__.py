"""Policy losses, token weightings, penalties and reductions."""

from delta_lightning.losses.clipped_surrogate import ClippedSurrogate
from delta_lightning.losses.constant import Constant
from delta_lightning.losses.token_mean import TokenMean

__all__ = ["ClippedSurrogate", "Constant", "TokenMean"]
