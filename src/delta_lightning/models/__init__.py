"""Backbones: where the policy comes from. Importing them imports neither torch's nor transformers' models."""

from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.pretrained import Pretrained
from delta_lightning.models.tiny import Tiny
from delta_lightning.models.warm_start import WarmStart

__all__ = ["Backbone", "LoadContext", "Pretrained", "Tiny", "WarmStart"]
