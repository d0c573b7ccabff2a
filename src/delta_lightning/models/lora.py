"""Low-rank adaptation (Hu et al., 2021), by the layers of `peft`: the only file that imports it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delta_lightning.errors import ConfigError, require
from delta_lightning.functional.random import stable_hash
from delta_lightning.models.adapter import Adapter

if TYPE_CHECKING:
    from torch import Tensor

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WHOLE_ONLY = ("lm_head", "embed_tokens")
NAME = "default"  # under which peft's layers keep the matrices
BASE, A, B = ".base_layer.", f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """Each target's weight W [out, in] becomes W + s B A, with B [out, r] and A [r, in] trained and W frozen.

    s = alpha / r, or alpha / sqrt(r) with `rank_stabilised` (Kalajdzievski, 2023). B begins at 0, so the model begins as its
    base; A is uniform in (-1/sqrt(in), 1/sqrt(in)), drawn from the run's seed and the matrix's name. A and B are float32, or
    the base's dtype where that is wider. There is no dropout: old and new log-probabilities must be of the same function.

    Args:
        rank: r, at least 1. alpha: numerator of the scale, > 0.
        targets: names of linear layers inside decoder layers; the default is all of them. Never the head or the embedding.
        rank_stabilised: divide by sqrt(r), so that the size of updates does not fall with the rank.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ALL_LINEAR
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        require(self.rank >= 1, "LoRA.rank", wanted="at least 1", got=self.rank, remedy="8 to 64 are usual.")
        require(self.alpha > 0, "LoRA.alpha", wanted="more than 0", got=self.alpha, remedy="Twice the rank is usual.")
        require(bool(self.targets), "LoRA.targets", wanted="at least 1 layer", got=self.targets, remedy="Leave it out for all.")
        for name in WHOLE_ONLY:
            require(
                name not in self.targets, "LoRA.targets", wanted="linear layers inside decoder layers", got=name,
                remedy=f"Leave {name} out: its weight is read directly, by the chunked head, by credit and by samplers.",
            )  # fmt: skip

    def __str__(self) -> str:
        return f"LoRA of rank {self.rank}, scale {self.scale:g}"

    @property
    def scale(self) -> float:
        """s."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)

    def check(self) -> Sequence[str]:
        """Names the peft found. Raises `ConfigError` without one."""
        if find_spec("peft") is None:
            raise ConfigError(
                "model.adapter=LoRA", wanted="the package peft", got="none",
                remedy="Install it: pip install 'delta-lightning[lora]'.",
            )  # fmt: skip
        from importlib.metadata import version

        return (f"adapter: peft {version('peft')}",)

    def targets_in(self, model: Any) -> tuple[str, ...]:
        """Every module inside a decoder layer whose name is a target's. Raises `ConfigError` if a target names none."""
        import torch

        inside = [(f"model.layers.{path}", module) for path, module in model.model.layers.named_modules()]
        linear = [path for path, module in inside if isinstance(getattr(module, "base_layer", module), torch.nn.Linear)]
        found = tuple(path for path in linear if path.rpartition(".")[2] in self.targets)
        missing = sorted(set(self.targets) - {path.rpartition(".")[2] for path in found})
        if missing:
            names = sorted({path.rpartition(".")[2] for path in linear} - {"base_layer", NAME})
            raise ConfigError(
                "LoRA.targets", wanted=f"linear layers of {type(model).__name__}: {', '.join(names)}",
                got=", ".join(missing), remedy="Correct the names, or leave targets out for all of them.",
            )  # fmt: skip
        return found

    def attach(self, model: Any) -> None:
        """See `Adapter.attach`. Draws nothing: peft's own draws would depend on the number of ranks. Raises `ConfigError`."""
        self.check()
        paths = list(self.targets_in(model))
        import torch
        from peft import inject_adapter_in_model

        model.requires_grad_(False)
        inject_adapter_in_model(self._config(paths, base=None), model, adapter_name=NAME, low_cpu_mem_usage=True)
        for path in paths:
            layer = model.get_submodule(path)
            weight = layer.base_layer.weight
            wide = torch.promote_types(weight.dtype, torch.float32)
            for matrix in (layer.lora_A[NAME], layer.lora_B[NAME]):
                empty = torch.zeros(matrix.weight.shape, dtype=wide, device=weight.device)
                matrix.weight = torch.nn.Parameter(empty)
        model.eval()

    def draw(self, name: str, shape: Sequence[int], seed: int) -> Tensor:
        """A: uniform with standard deviation 1/sqrt(3 in), in [r, in]; B: 0."""
        import torch

        if name.endswith(B):
            return torch.zeros(*shape)
        generator = torch.Generator().manual_seed(stable_hash(seed, "lora", name) % 2**62)
        unit = torch.rand(*shape, generator=generator)
        return (2 * unit - 1) / float(shape[1] ** 0.5)

    @contextmanager
    def off(self, model: Any) -> Iterator[None]:
        """See `Adapter.off`. The layers' own switch also turns `requires_grad` off and on, which sharded ones do not expect."""
        layers = [model.get_submodule(path) for path in self.targets_in(model)]
        before = [layer._disable_adapters for layer in layers]
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, value in zip(layers, before, strict=True):
                layer._disable_adapters = value

    def base_name(self, name: str) -> str | None:
        """See `Adapter.base_name`."""
        return None if name.endswith((A, B)) else name.replace(BASE, ".")

    def change(self, model: Any, name: str) -> Tensor | None:
        """s B A, [out, in], of a target's weight; computed in A's dtype."""
        from delta_lightning.models.sharding import full

        path, found, leaf = name.rpartition(BASE)
        if not found or leaf != "weight":
            return None
        layer = model.get_submodule(path)
        product = full(layer.lora_B[NAME].weight) @ full(layer.lora_A[NAME].weight)
        return product.mul_(self.scale)

    def write(self, folder: Path, values: dict[str, Tensor], base: str | None) -> None:
        """`adapter_config.json` and `adapter_model.safetensors`, which `peft.PeftModel.from_pretrained(base, folder)` loads."""
        from safetensors.torch import save_file

        paths = sorted({name.partition(".lora_")[0] for name in values})
        kinds = sorted({path.rpartition(".")[2] for path in paths})
        config = self._config(kinds, base=base)
        config.inference_mode = True
        config.save_pretrained(str(folder))
        named = {f"base_model.model.{name.replace(f'.{NAME}.', '.')}": value.contiguous() for name, value in values.items()}
        save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def _config(self, targets: list[str], *, base: str | None) -> Any:
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, target_modules=targets, lora_dropout=0.0, bias="none",
            use_rslora=self.rank_stabilised, task_type="CAUSAL_LM", base_model_name_or_path=base,
        )  # fmt: skip
