"""Small random models and a tokenizer double for tests."""

from __future__ import annotations

from typing import Any

import torch

EOS = 1


class NumberTokenizer:
    """Decodes token ids to their decimal numbers."""

    eos_token_id = EOS
    pad_token_id = 0

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(str(i) for i in ids if i > EOS or not skip_special_tokens)


def tiny_model(
    family: str = "qwen3", *, vocabulary: int = 64, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> Any:
    """A random causal LM of two layers."""
    from transformers import Olmo3Config, Olmo3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    common: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": EOS, "bos_token_id": None,
        "tie_word_embeddings": True,
    } | changes  # fmt: skip
    torch.manual_seed(seed)
    if family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(head_dim=8, **common))
    else:
        model = Olmo3ForCausalLM(Olmo3Config(sliding_window=8, **common))
    return model.to(dtype).eval()
