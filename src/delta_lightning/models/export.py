"""A model as a folder that `transformers` and vLLM load, written a tensor at a time: no rank holds all of it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from delta_lightning.models.adapted import adapter_of, gathered_adapter
from delta_lightning.models.sharding import full
from delta_lightning.models.weight_files import INDEX, WEIGHTS
from delta_lightning.models.weights import weights_of

SHARD_BYTES = 2 << 30  # of one safetensors file; a larger tensor has a file of its own


@torch.no_grad()
def gathered_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights, an adapter merged, and persistent buffers by name, whole, in main memory, one at a time; no tied head.

    Collective under sharding: every rank must exhaust it. Each holds one tensor at a time.
    """
    for name, weight in weights_of(model):
        yield name, weight.cpu()
    kept = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in kept:
            yield name, full(buffer).cpu()


def exported_weights(policy: Any, *, alone: bool) -> Iterator[tuple[str, Tensor]]:
    """What an export of the policy holds: all its weights, or its adapter's `alone`. Collective, as `gathered_weights`."""
    return gathered_adapter(policy) if alone else gathered_weights(policy)


def write_policy(folder: Path, policy: Any, weights: Iterable[tuple[str, Tensor]], *, alone: bool) -> None:
    """Writes the policy's `exported_weights`, with what is needed to load them, to `folder`."""
    if not alone:
        write_model(folder, weights, policy.config, policy.generation_config)
        return
    adapter = adapter_of(policy)
    assert adapter is not None
    folder.mkdir(parents=True, exist_ok=True)
    adapter.write(folder, dict(weights), getattr(policy.config, "_name_or_path", None) or None)


def write_model(
    folder: Path, weights: Iterable[tuple[str, Tensor]], config: Any, generation: Any = None, *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes `weights`, `config.json` and `generation_config.json` to `folder`, as `save_pretrained` of `transformers` does.

    Holds at most `shard_bytes` of weights, or one larger tensor, at a time.

    Args:
        folder: is made if it is not there.
        weights: names and tensors in main memory, each name once; a tied head is left out.
        config: the model's `transformers` config. generation: its generation config, if it has one.
        shard_bytes: largest file of weights. One file is `model.safetensors`; several have an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = _Files(folder, shard_bytes)
    for name, tensor in weights:
        files.add(name, tensor)
    files.close()
    _write_config(folder, config, files.dtype)
    if generation is not None:
        generation.save_pretrained(folder)
    readable(folder)


def readable(folder: Path) -> None:
    """Gives the folder's files the rights of any new file: safetensors writes for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)


def _write_config(folder: Path, config: Any, dtype: torch.dtype | None) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config = copy.deepcopy(config)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]
    config.dtype = None if dtype is None else str(dtype).removeprefix("torch.")
    config.save_pretrained(folder)


class _Files:
    """Safetensors files of bounded size; how many there are is known at the end, when they get their names."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._open: dict[str, Tensor] = {}
        self._open_bytes = 0
        self._written: list[list[str]] = []  # names of tensors, by file
        self._bytes, self._numbers = 0, 0
        self.dtype: torch.dtype | None = None  # of the first floating-point tensor, as transformers says it

    def add(self, name: str, tensor: Tensor) -> None:
        if any(name in names for names in (*self._written, self._open)):
            raise ValueError(f"the tensor {name} was given twice")
        size = tensor.numel() * tensor.element_size()
        if self._open and self._open_bytes + size > self._limit:
            self._flush()
        self._open[name] = tensor.contiguous()
        self._open_bytes += size
        self._bytes, self._numbers = self._bytes + size, self._numbers + tensor.numel()
        if self.dtype is None and tensor.is_floating_point():
            self.dtype = tensor.dtype
        if self._open_bytes >= self._limit:
            self._flush()

    def close(self) -> None:
        self._flush()
        count = len(self._written)
        if count == 1:
            self._unnamed(0).rename(self._folder / WEIGHTS)
            return
        where: dict[str, str] = {}
        for index, names in enumerate(self._written):
            final = f"model-{index + 1:05d}-of-{count:05d}.safetensors"
            self._unnamed(index).rename(self._folder / final)
            where |= dict.fromkeys(names, final)
        values = {"metadata": {"total_parameters": self._numbers, "total_size": self._bytes}, "weight_map": where}
        (self._folder / INDEX).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def _flush(self) -> None:
        from safetensors.torch import save_file

        if self._open:
            save_file(self._open, self._unnamed(len(self._written)), metadata={"format": "pt"})
            self._written.append(list(self._open))
        self._open, self._open_bytes = {}, 0

    def _unnamed(self, index: int) -> Path:
        return self._folder / f"{index}.unnamed"
