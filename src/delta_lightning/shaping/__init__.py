"""Reward shaping: changes rewards before anything reads them. No shaping is an empty list."""

from delta_lightning.shaping.soft_overlong import SoftOverlong

__all__ = ["SoftOverlong"]
