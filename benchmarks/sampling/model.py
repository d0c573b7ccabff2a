"""A random Qwen3 whose answers have long-tailed lengths, so that every engine samples the same distribution of lengths.

One direction of the residual stream carries a mode that no layer writes to and the head reads. Prompts have none; the first
token decides: one token in sixteen is of the long kind, after which every token is, none of them ends the sequence, and the
answer runs to the limit. After a token of the short kind every token is short, and one in `mean` of those ends the sequence.
"""

from __future__ import annotations

from typing import Any

import torch

PAD, EOS, PROMPT_TOKENS = 0, 1, 8  # ids 2 .. 9 are the prompts'
LONG_SHARE = 16
PUSH = 12.0  # logits by which a mode excludes the other kind


class Numbers:
    """A tokenizer double: token ids as decimal numbers."""

    eos_token_id, pad_token_id = EOS, PAD

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


@torch.no_grad()
def long_tailed(
    *,
    layers: int,
    width: int,
    vocabulary: int,
    mean: int,
    context: int,
    dtype: torch.dtype = torch.float32,
    family: str = "qwen3",
) -> Any:
    """The model, on the CPU; `mean` is that of short answers, in tokens."""
    from transformers import Olmo3Config, Olmo3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    heads = max(2, width // 64)
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": max(1, heads // 2), "max_position_embeddings": context,
        "eos_token_id": EOS, "pad_token_id": PAD, "bos_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    if family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(head_dim=width // heads, **sizes))
    else:
        model = Olmo3ForCausalLM(Olmo3Config(sliding_window=64, **sizes))
    model = model.to(dtype).eval()
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[0] = 0
        layer.mlp.down_proj.weight[0] = 0
        for name in ("post_attention_layernorm", "post_feedforward_layernorm"):  # Olmo3 norms what a layer writes
            if family == "olmo3":
                getattr(layer, name).weight[0] = 0
    ids = torch.arange(vocabulary)
    content = ids >= 2 + PROMPT_TOKENS
    long = content & (ids % LONG_SHARE == 0)
    short = (content & ~long).nonzero()[:, 0]
    embedding = model.model.embed_tokens.weight
    strong = 8 * embedding.std()
    embedding[:, 0] = torch.where(long, strong, -strong).masked_fill(~content, 0)
    states = model.model(input_ids=ids[content][:, None]).last_hidden_state[:, -1, 0]
    unit = float(states.abs().min())  # of the mode, after the last norm
    model.lm_head.weight[:, 0] = torch.where(long, PUSH, -PUSH).masked_fill(~content, 0) / unit
    model.lm_head.weight[~content, 1:] *= -1
    model.generation_config.eos_token_id = [EOS, *short[::mean].tolist()]
    model.generation_config.pad_token_id = PAD
    return model
