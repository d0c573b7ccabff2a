"""A model from a folder or from the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from delta_lightning.errors import ConfigError, check_path, require
from delta_lightning.models.architecture import meta_model, read_architecture
from delta_lightning.models.backbone import Backbone, LoadContext
from delta_lightning.models.liger import check_liger, use_liger
from delta_lightning.models.sharding import device_of, enter
from delta_lightning.models.weight_files import (
    INDEX,
    WeightFiles,
    contents,
    differing_names,
    refuse_damaged,
    refuse_other_shapes,
    tensor_files,
)

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
FETCHED = ["config.json", "generation_config.json", "model.safetensors", "model-*.safetensors", INDEX]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


@dataclass(frozen=True, kw_only=True)
class Pretrained(Backbone):
    """A causal LM with published or exported weights, in safetensors.

    Args:
        path: folder of the model, or its name on the Hugging Face Hub such as Qwen/Qwen3-8B-Base.
        revision: branch, tag or commit of a Hub model; a commit makes runs repeatable.
        dtype: of the weights; float32 masters unless memory forbids them.
        attn_implementation: attention kernel: "sdpa", "eager", or "flash_attention_2" where flash-attn is installed.
        kernels: of norms, feed-forward layers and rotations: "transformers", or "liger" where liger-kernel and a GPU are.
        architecture: JSON file with the model's architecture, for `meta` only: plans need neither weights nor network.
    """

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    kernels: Literal["transformers", "liger"] = "transformers"
    architecture: str | None = None

    def __post_init__(self) -> None:
        require(
            bool(self.path.strip()), "Pretrained.path", wanted="a folder or a Hub name", got=self.path, remedy="Name a model."
        )

    def check(self) -> None:
        """Refuse a folder without config, weights or tokenizer, truncated weights, and a name that cannot be on the Hub."""
        if self.architecture is not None:
            read_architecture(self.architecture)
        folder = self._folder()
        if self.kernels == "liger":
            place = self.architecture or folder
            check_liger(None if place is None else read_architecture(place)["model_type"])
        if folder is None:
            return
        read_architecture(folder)
        refuse_damaged(folder)
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise ConfigError(
                f"model folder {folder}",
                wanted=f"a tokenizer ({', '.join(TOKENIZER_FILES)})",
                got=contents(folder),
                remedy="Save the tokenizer beside the model (tokenizer.save_pretrained).",
            )

    def tokenizer(self) -> Any:
        """The model's own tokenizer. Raises `ConfigError` if it cannot be had or has no end-of-sequence token."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._source(), revision=self.revision)
        except (OSError, ValueError) as error:
            raise self._not_loaded("a tokenizer", error) from error
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"tokenizer of {self.path}",
                wanted="an end-of-sequence token",
                got="none",
                remedy="Set eos_token in its tokenizer_config.json.",
            )
        return tokenizer

    def context_length(self) -> int | None:
        """`max_position_embeddings` of the folder's config.json; None for a Hub name."""
        folder = self._folder()
        if folder is None:
            return None
        length = json.loads((folder / "config.json").read_bytes()).get("max_position_embeddings")
        return length if isinstance(length, int) else None

    def attention_kernel(self) -> str:
        """`attn_implementation`."""
        return self.attn_implementation

    def use_kernels(self, model: Any) -> None:
        """Liger's, if they are asked for. Raises `ConfigError`."""
        if self.kernels == "liger":
            use_liger(model)

    def load(self, context: LoadContext) -> Any:
        """The model with its weights, in evaluation mode. Raises `ConfigError` if it cannot be had."""
        import torch
        from transformers import AutoModelForCausalLM

        context.tick(f"loading {self.path}", 0, 1)
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                self._source(),
                revision=self.revision,
                dtype=getattr(torch, self.dtype),
                attn_implementation=self.attn_implementation,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, ImportError) as error:
            raise self._not_loaded("a causal language model", error) from error
        context.tick(f"loading {self.path}", 1, 1)
        _refuse_other_names(sorted(info["missing_keys"]), sorted(info["unexpected_keys"]), self.path)
        if model.config.tie_word_embeddings and model.lm_head.weight is not model.model.embed_tokens.weight:
            raise untied(self.path)
        refuse_other_heads(model.eval(), self.path)
        return model

    def weight_files(self, context: LoadContext) -> WeightFiles | None:
        """See `Backbone.weight_files`; None where `transformers` must rename or convert tensors. Fetches a model of the Hub."""
        import torch
        from transformers import AutoConfig, GenerationConfig

        folder = self._folder() or self._fetched()
        try:
            config = AutoConfig.from_pretrained(folder, attn_implementation=self.attn_implementation)
            generation = GenerationConfig.from_pretrained(folder) if (folder / "generation_config.json").is_file() else None
        except (OSError, ValueError) as error:
            raise self._not_loaded("a causal language model", error) from error
        files = tensor_files(folder)
        shapes = {name: tuple(value.shape) for name, value in meta_model(folder).named_parameters()}
        if files is None or any(differing_names(files, shapes, tied=config.tie_word_embeddings)):
            return None
        refuse_other_shapes(files, shapes, f"model {self.path}")
        return WeightFiles(
            config=config, dtype=getattr(torch, self.dtype), generation=generation, files=files,
            accept=lambda model: refuse_other_heads(model, self.path), untied=lambda: untied(self.path),
            tick=lambda done, total: context.tick(f"loading {self.path}", done, total),
        )  # fmt: skip

    def knows_sizes(self) -> bool:
        """Not of a name on the Hub."""
        return self.architecture is not None or self._folder() is not None

    def meta(self) -> Any:
        """The model on the meta device, from `architecture` if it is set, else from the folder's config.json."""
        folder = self._folder()
        place = self.architecture or folder
        if place is None:
            raise ConfigError(
                "Pretrained.architecture",
                wanted="the JSON of a model that is on the Hub",
                got="none",
                remedy="Set it, for example to configs/models/Qwen3-8B-Base.json.",
            )
        return meta_model(place)

    def _folder(self) -> Path | None:
        """The local folder, or None for a Hub name. Raises `ConfigError` for what is neither."""
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            return folder
        if folder.exists() or not HUB_NAME.fullmatch(self.path):
            got = f"{self.path}, a file" if folder.exists() else f"{self.path}, which does not exist"
            remedy = f"{check_path(folder)} A Hub name looks like Qwen/Qwen3-8B-Base."
            raise ConfigError("model path", wanted="a folder or a Hub name", got=got, remedy=remedy)
        return None

    def _fetched(self) -> Path:
        """The folder of a Hub model in the cache; ranks of one machine wait for the one that fetches it."""
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=FETCHED))
        except (OSError, ValueError) as error:
            raise self._not_loaded("a causal language model", error) from error

    def _source(self) -> str:
        folder = self._folder()
        return self.path if folder is None else str(folder)

    def _not_loaded(self, wanted: str, error: Exception) -> ConfigError:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        remedy = (
            "Check the folder."
            if self._folder()
            else "No folder has this name; check the spelling, the network and your login."
        )
        return ConfigError(f"model {self.path}", wanted=wanted, got=lines[0] if lines else repr(error), remedy=remedy)


def refuse_other_heads(model: Any, path: str) -> None:
    """Refuses a model whose logits are not `lm_head.weight @ hidden`: a bias, a scale or a soft cap would be lost silently.

    Raises `ConfigError`.
    """
    import torch

    from delta_lightning.functional.logprobs import head_logits

    got = "no `model` and `lm_head`"
    if getattr(model.config, "final_logit_softcapping", None) is not None:
        got = "a soft cap on the logits"  # small logits would not show it
    elif hasattr(model, "model") and hasattr(model, "lm_head"):
        ids = torch.arange(8, device=device_of(model))[None] % model.config.vocab_size

        def product(model: Any) -> Any:
            return head_logits(model.model(input_ids=ids, use_cache=False).last_hidden_state, model.lm_head.weight, 1.0)

        with torch.no_grad():
            want = model(input_ids=ids, use_cache=False).logits
            ours = enter(model, product)
        worst = float((torch.log_softmax(want.to(ours.dtype), -1) - torch.log_softmax(ours, -1)).abs().max())
        if worst < (1e-3 if want.dtype in (torch.float32, torch.float64) else 0.1):
            return
        got = f"log-probabilities that differ by up to {worst:.2g} nats"
    raise ConfigError(
        f"model.backbone {path} ({type(model).__name__})", wanted="a model whose logits are lm_head.weight @ hidden", got=got,
        remedy="Qwen3 and Olmo3 are; heads with a bias, a scale or a soft cap are not supported.",
    )  # fmt: skip


def _refuse_other_names(missing: list[str], beyond: list[str], path: str) -> None:
    """Refuses weights without some of the model's tensors, which would be random, or with others. Raises `ConfigError`."""
    for names, got in ((missing, "without"), (beyond, "with")):
        if names:
            raise ConfigError(
                f"model {path}", wanted="the tensors that its config.json describes, and no others",
                got=f"weights {got} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else ""),
                remedy="Fetch config and weights again: they do not belong together.",
            )  # fmt: skip


def untied(path: str) -> ConfigError:
    """Says that a model's head is not its embedding, though its config ties them."""
    return ConfigError(
        f"model {path}", wanted="a head equal to the embedding, since config.json ties them", got="another head",
        remedy="Set tie_word_embeddings to false in its config.json.",
    )  # fmt: skip
