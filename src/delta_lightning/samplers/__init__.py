"""Samplers: engines that complete prompts."""

from delta_lightning.samplers.hf import HFSampler

__all__ = ["HFSampler"]
