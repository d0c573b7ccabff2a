"""Where the policy comes from, and how rows go through it. Importing these parts imports neither torch nor transformers."""

from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.layout import RowLayout
from delta_lightning.models.packed import Packed
from delta_lightning.models.padded import Padded
from delta_lightning.models.pretrained import Pretrained
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.warm_start import WarmStart

__all__ = ["Backbone", "LoadContext", "Packed", "Padded", "Pretrained", "RowLayout", "Tiny", "WarmStart"]
