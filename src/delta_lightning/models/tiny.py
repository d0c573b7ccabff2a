"""A model small enough to be made, taught and trained on two CPU cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from delta_lightning.errors import require
from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.tokenizer import EOS_ID, PAD_ID, VOCABULARY, byte_tokenizer
from delta_lightning.models.warm_start import WarmStart
from delta_lightning.models.warm_start_cache import warm_started

FULL_ATTENTION_EVERY = 4  # Olmo3: three sliding-window layers, then one with full attention


@dataclass(frozen=True, kw_only=True)
class Tiny(Backbone):
    """A tiny causal LM with random weights and a byte tokenizer; optionally warm-started by supervised learning.

    Weights are drawn with standard deviation 1/sqrt(hidden_size), which keeps the size of activations; the 0.02 of large
    models makes a narrow one learn at half the speed. The defaults have about 0.6 million parameters.

    Args:
        family: architecture, "qwen3" or "olmo3". Olmo3 has sliding-window layers, the last layer and every fourth
            before it attend to everything.
        hidden_size: width D of the residual stream; a multiple of `heads`, D / heads even.
        layers: number of decoder layers.
        heads: attention heads. kv_heads: key-value heads, a divisor of `heads`.
        intermediate_size: width of the feed-forward layers.
        context: longest sequence, tokens.
        sliding_window: tokens that a sliding-window layer sees (Olmo3 only).
        tie_embeddings: the LM head's weight is the embedding's.
        seed: of the random weights and of the warm start's order; None takes the run's seed.
        warm_start: supervised learning before the run; None leaves the weights random.
    """

    family: Literal["qwen3", "olmo3"] = "qwen3"
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 384
    context: int = 1024
    sliding_window: int = 32
    tie_embeddings: bool = True
    seed: int | None = None
    warm_start: WarmStart | None = None

    def __post_init__(self) -> None:
        for name in ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "context", "sliding_window"):
            value = getattr(self, name)
            require(value >= 1, f"Tiny.{name}", wanted="at least 1", got=value, remedy="Raise it.")
        known = self.family in ("qwen3", "olmo3")
        require(known, "Tiny.family", wanted='"qwen3" or "olmo3"', got=self.family, remedy="Choose one of them.")
        even = self.hidden_size % self.heads == 0 and self.hidden_size // self.heads % 2 == 0
        wanted = f"a multiple of 2 * heads = {2 * self.heads}"
        require(
            even,
            "Tiny.hidden_size",
            wanted=wanted,
            got=self.hidden_size,
            remedy="Rotary embeddings rotate pairs of dimensions.",
        )
        whole = self.heads % self.kv_heads == 0
        wanted = f"a divisor of heads = {self.heads}"
        require(whole, "Tiny.kv_heads", wanted=wanted, got=self.kv_heads, remedy="Each key-value head serves whole heads.")

    def check(self) -> None:
        """Nothing to refuse: the ranges were checked when it was built."""

    def context_length(self) -> int:
        """Tokens of prompt and completion together."""
        return self.context

    def tokenizer(self) -> Any:
        """A tokenizer of bytes."""
        return byte_tokenizer()

    def config(self) -> Any:
        """The `transformers` config."""
        from transformers import Olmo3Config, Qwen3Config

        shape: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tie_embeddings,
            "initializer_range": self.hidden_size**-0.5,
            "pad_token_id": PAD_ID,
            "eos_token_id": EOS_ID,
            "bos_token_id": None,
            "dtype": "float32",
        }
        if self.family == "qwen3":
            return Qwen3Config(head_dim=self.hidden_size // self.heads, **shape)
        full = [(self.layers - 1 - layer) % FULL_ATTENTION_EVERY == 0 for layer in range(self.layers)]
        types = ["full_attention" if whole else "sliding_attention" for whole in full]
        return Olmo3Config(sliding_window=self.sliding_window, layer_types=types, **shape)

    def load(self, context: LoadContext) -> Any:
        """Random weights drawn from the seed, then the warm start if there is one. Raises `ConfigError`."""
        import torch
        from transformers import AutoModelForCausalLM

        seed = context.seed if self.seed is None else self.seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(self.config(), dtype=torch.float32).eval()
        if self.warm_start is None:
            return model
        architecture = {"config": self.config().to_dict(), "tokenizer": self.tokenizer().backend_tokenizer.to_str()}
        return warm_started(model, architecture, self.warm_start, context, seed=seed)

    def meta(self) -> Any:
        """The model on the meta device."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self.config(), dtype=torch.float32).eval()
