"""Tensors of a checkpoint by name, one at a time and whole, without a model or a process group."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from delta_lightning.errors import ConfigError

PREFIX = "policy."  # of the policy's tensors among those of the module
STATE_PACKAGES = ("torchao",)  # whose classes may stand in an optimiser's state
CONFIGS = "delta_lightning_model"  # entry of a checkpoint: the model's configs as JSON


def model_configs(policy: Any) -> dict[str, str]:
    """The configs of a model as plain values for a checkpoint, so that it can be exported without its base."""
    configs = {"config": policy.config, "generation": policy.generation_config}
    return {name: json.dumps(one.to_dict(), default=str) for name, one in configs.items() if one is not None}


def restored_configs(stored: dict[str, str]) -> tuple[Any, Any]:
    """The inverse of `model_configs`: config, and generation config or None."""
    from transformers import AutoConfig, GenerationConfig

    values = json.loads(stored["config"])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    return config, GenerationConfig.from_dict(json.loads(stored["generation"])) if "generation" in stored else None


def names_of(config: Any) -> list[str]:
    """Parameters and persistent buffers of a causal LM in their order, a tied head left out."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    kept = model.state_dict().keys()
    return [name for name, _ in model.named_parameters()] + [name for name, _ in model.named_buffers() if name in kept]


def checkpoint_head(checkpoint: Path) -> dict[str, Any]:
    """All of a file, mapped; of a folder what is not cut into parts.

    Raises:
        ConfigError: the optimiser's state is of a package that is not installed, or not one of `STATE_PACKAGES`.
        UnpicklingError, RuntimeError and others: it is no checkpoint.
    """
    file = checkpoint / "meta.pt" if checkpoint.is_dir() else checkpoint
    try:
        return _mapped(file)
    except UnpicklingError:
        _import_packages(file)
        return _mapped(file)


def _mapped(file: Path) -> dict[str, Any]:
    return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=True))


def _import_packages(file: Path) -> None:
    """Imports packages of classes in the state, such as 8-bit moments: they tell torch themselves which may be read.

    No others than `STATE_PACKAGES`: a file must not choose what runs here.
    """
    for name in torch.serialization.get_unsafe_globals_in_checkpoint(file):
        package = name.partition(".")[0]
        if package not in STATE_PACKAGES:
            raise ConfigError(
                str(file), wanted=f"state of torch and of {', '.join(STATE_PACKAGES)}", got=name,
                remedy="It is not imported, because a file must not choose what runs here. The run itself exports at its end.",
            )  # fmt: skip
        try:
            importlib.import_module(name.rpartition(".")[0])
        except ModuleNotFoundError as error:
            raise ConfigError(
                str(file), wanted=f"the package of its optimiser's state, {name}", got=f"no {error.name}",
                remedy=f"Install it: pip install {package}.",
            ) from error  # fmt: skip


def stored_names(checkpoint: Path) -> list[str]:
    """Names of the policy's tensors in a checkpoint, a file or a folder."""
    keys = _metadata(checkpoint) if checkpoint.is_dir() else _file(checkpoint)
    prefix = f"state_dict.{PREFIX}" if checkpoint.is_dir() else PREFIX
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def stored_tensors(checkpoint: Path, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Those tensors of the policy, in main memory; a file is mapped, of a folder's parts one tensor is read at a time."""
    if not checkpoint.is_dir():
        tensors = _file(checkpoint)
        for name in names:
            yield name, tensors[PREFIX + name].contiguous()
        return
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    metadata = _metadata(checkpoint)
    for name in names:
        key = f"state_dict.{PREFIX}{name}"
        tensor = torch.empty(metadata[key].size, dtype=metadata[key].properties.dtype)
        load({key: tensor}, storage_reader=FileSystemReader(checkpoint), no_dist=True)
        yield name, tensor


def _file(checkpoint: Path) -> dict[str, Tensor]:
    return dict(checkpoint_head(checkpoint)["state_dict"])


def _metadata(checkpoint: Path) -> dict[str, Any]:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    return dict(FileSystemReader(checkpoint).read_metadata().state_dict_metadata)
