"""Widths of attention heads that vLLM knows on CPUs; for others it fails at the first prompt."""

from __future__ import annotations

from typing import Any

from delta_lightning.errors import require

CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # a test compares them with those of vLLM


def check_cpu_heads(config: Any, sampler: str) -> None:
    """Refuse a model of `transformers` whose heads vLLM does not know on CPUs. Raises `ConfigError`, which names `sampler`."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    require(
        width in CPU_HEADS, f"model.sampler={sampler}",
        wanted=f"a model whose heads are {', '.join(map(str, CPU_HEADS))} wide, as vLLM needs on CPUs",
        got=f"width {width}", remedy="Use --model.sampler=HFSampler, or a GPU.",
    )  # fmt: skip
