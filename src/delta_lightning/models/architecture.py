"""Architectures as published JSON: read, checked, and built on the meta device without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from delta_lightning.errors import ConfigError, check_path


def read_architecture(path: str | Path) -> dict[str, Any]:
    """The architecture in a JSON file, or in the `config.json` of a folder. Raises `ConfigError` for anything else."""
    file = Path(path).expanduser()
    file = file / "config.json" if file.is_dir() else file
    if not file.is_file():
        raise ConfigError(f"architecture {file}", wanted="a JSON file", got="no such file", remedy=check_path(file))
    try:
        values = json.loads(file.read_bytes())
    except ValueError as error:
        remedy = "Fetch the file again, or restore it from its repository."
        raise ConfigError(f"architecture {file}", wanted="valid JSON", got=str(error), remedy=remedy) from error
    known = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(known, str):
        raise ConfigError(
            f"architecture {file}",
            wanted="a JSON object with model_type",
            got="none",
            remedy="Use the config.json of a transformers model.",
        )
    names = values.get("architectures") or []
    if not all(isinstance(name, str) and name.endswith("ForCausalLM") for name in names):
        raise ConfigError(
            f"architecture {file}",
            wanted="a causal language model",
            got=repr(names),
            remedy="Choose a model for text generation.",
        )
    return dict(values)


def model_config(values: dict[str, Any], *, what: str) -> Any:
    """The `transformers` config of an architecture. `what` names it in the message. Raises `ConfigError`."""
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            what,
            wanted="an architecture that the installed transformers knows",
            got=f"{values.get('model_type')!r}: {error}",
            remedy="Correct it, or install a version of transformers that has it.",
        ) from error


def meta_model(path: str | Path) -> Any:
    """The causal LM that a JSON file (or a model folder) describes, on the meta device: shapes and names, no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    config = model_config(read_architecture(path), what=f"architecture {path}")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).eval()
