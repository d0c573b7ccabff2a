"""Credit assigners compared on the identical rollouts and weights: what `delta-lightning ablate` runs.

Above the trainer and below the command line: parts come from the config, none is named here.
"""

from delta_lightning.ablation.gradients import gradient_products
from delta_lightning.ablation.labels import labelled
from delta_lightning.ablation.recording import Recording
from delta_lightning.ablation.replay import Replay, replay
from delta_lightning.ablation.summary import Sizes, summarise

__all__ = ["Recording", "Replay", "Sizes", "gradient_products", "labelled", "replay", "summarise"]
