"""Where the policy comes from, what of it is trained, how rows go through it. Importing this imports no torch."""

from delta_lightning.models.adapter import Adapter
from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.layout import RowLayout
from delta_lightning.models.lora import LoRA
from delta_lightning.models.packed import Packed
from delta_lightning.models.padded import Padded
from delta_lightning.models.pretrained import Pretrained
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.warm_start import WarmStart

__all__ = ["Adapter", "Backbone", "LoRA", "LoadContext", "Packed", "Padded", "Pretrained", "RowLayout", "Tiny", "WarmStart"]
