"""Samplers: engines that complete prompts."""

from delta_lightning.samplers.hf import HFSampler
from delta_lightning.samplers.recorded import RecordedSampler
from delta_lightning.samplers.recording import RecordingSampler
from delta_lightning.samplers.vllm import VLLMSampler
from delta_lightning.samplers.vllm_server import VLLMServerSampler

__all__ = ["HFSampler", "RecordedSampler", "RecordingSampler", "VLLMSampler", "VLLMServerSampler"]
