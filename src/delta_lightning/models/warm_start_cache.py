"""Warm-started weights on disk, found by a hash of all that made them and loaded only if they are what their manifest says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from delta_lightning.models.backbone import Demonstration, LoadContext
from delta_lightning.models.warm_start import RECIPE, WarmStart, demonstrations_hash, train

WEIGHTS, MANIFEST = "model.safetensors", "manifest.json"
NOT_THE_RESULT = ("cache", "cache_folder")  # options that say where the result is kept, not what it is


class CacheRejectedError(Exception):
    """A cached warm start that cannot be trusted; the message says why."""


def warm_started(model: Any, architecture: Mapping[str, Any], options: WarmStart, context: LoadContext, *, seed: int) -> Any:
    """`model` after its warm start: from the cache if it holds exactly this one, else trained now and kept.

    Args:
        model: freshly initialised from `seed`; changed in place.
        architecture: what the weights depend on besides data, options and seed; JSON values.
    """
    demonstrations = list(context.demonstrations())
    key = cache_key(architecture, options, demonstrations, seed=seed)
    folder = cache_root(options) / _digest(key)
    if options.cache and os.path.exists(folder):  # Path.exists raises where it may not look
        try:
            result = restore(model, folder, key)
        except CacheRejectedError as reason:
            context.say(f"warm start: the cache {folder} is not used ({reason}); it is made again")
        else:
            context.say(f"warm start: from the cache {folder} ({result['probability']:.0%} of worked answers reproduced)")
            return model
    started = time.monotonic()
    reached = train(model, demonstrations, options, context, seed=seed)
    seconds = time.monotonic() - started
    missed = "" if reached.probability >= options.target else f", short of the {options.target:.0%} wanted: raise max_steps"
    share = f"{reached.probability:.0%} of worked answers reproduced"
    context.say(f"warm start: {share} after {reached.steps} steps, {seconds:.0f} s{missed}")
    if options.cache:
        try:
            _keep(model, folder, key, asdict(reached))
        except OSError as error:
            context.say(f"warm start: not kept for the next run, {folder.parent} cannot be written ({error.strerror or error})")
    return model


def cache_root(options: WarmStart) -> Path:
    """Folder of all cached warm starts."""
    base = options.cache_folder or os.environ.get("DELTA_CACHE") or "~/.cache/delta_lightning"
    return Path(base).expanduser() / "warm-start"


def cache_key(
    architecture: Mapping[str, Any], options: WarmStart, demonstrations: list[Demonstration], *, seed: int
) -> dict[str, Any]:
    """All that decides the weights, as JSON values."""
    import torch
    import transformers

    key = {
        "recipe": RECIPE,
        "seed": seed,
        "architecture": dict(architecture),
        "options": {name: value for name, value in asdict(options).items() if name not in NOT_THE_RESULT},
        "demonstrations": demonstrations_hash(demonstrations),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return dict(json.loads(json.dumps(key)))  # what a manifest gives back: lists for tuples, strings for keys


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def restore(model: Any, folder: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """Put the cached weights into `model`; gives the recorded result. Raises `CacheRejectedError`, the model then untouched."""
    import torch
    from safetensors.torch import load

    manifest = _manifest(folder, key)
    try:
        blob = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise CacheRejectedError(f"its weights cannot be read: {error.strerror or error}") from error
    # The bytes that were hashed are the bytes that are loaded: the file cannot change in between.
    if hashlib.sha256(blob).hexdigest() != manifest["files"].get(WEIGHTS):
        raise CacheRejectedError("its weights do not match their checksum")
    weights = load(blob)
    parameters = dict(model.named_parameters())
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()}
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in parameters.items()}
    if found != wanted:
        raise CacheRejectedError("its tensors are not those of this model")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    return dict(manifest["result"])


def _manifest(folder: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise CacheRejectedError(f"its manifest cannot be read: {error}") from error
    shapes = {"key": dict, "files": dict, "result": dict}
    if not isinstance(manifest, dict) or any(not isinstance(manifest.get(name), kind) for name, kind in shapes.items()):
        raise CacheRejectedError("its manifest is not one")
    if manifest["key"] != key:
        raise CacheRejectedError("it was made from something else")
    if not isinstance(manifest["result"].get("probability"), float):
        raise CacheRejectedError("its manifest is not one")
    return manifest


def _keep(model: Any, folder: Path, key: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write weights and manifest beside the final place, then move them there in one rename.

    Where another process (another rank) was first, its weights are taken instead, so that all have the same.
    """
    from safetensors.torch import save

    if _adopted(model, folder, key):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        # Parameters, not the state dict: a tied head appears once.
        blob = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.named_parameters()})
        (scratch / WEIGHTS).write_bytes(blob)
        manifest = {"key": key, "files": {WEIGHTS: hashlib.sha256(blob).hexdigest()}, "result": result}
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        _clear(folder)
        try:
            scratch.rename(folder)
        except OSError:
            if not _adopted(model, folder, key):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _adopted(model: Any, folder: Path, key: Mapping[str, Any]) -> bool:
    try:
        restore(model, folder, key)
    except CacheRejectedError:
        return False
    return True


def _clear(folder: Path) -> None:
    """Move a rejected folder away in one rename, then delete it; another process may do the same at the same time."""
    if not folder.exists():
        return
    aside = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
    try:
        folder.rename(aside / "rejected")
    except FileNotFoundError:
        pass  # the other process has moved it away already
    finally:
        shutil.rmtree(aside, ignore_errors=True)
