"""Credit assigners: how much each token counts, fixed under theta_old."""

from delta_lightning.credit.delta import Delta
from delta_lightning.credit.uniform import Uniform

__all__ = ["Delta", "Uniform"]
