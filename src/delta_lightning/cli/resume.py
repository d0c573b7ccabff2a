"""What `--ckpt_path` must be, and whether the run that it comes from had the same settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from delta_lightning.errors import ConfigError

CONFIG_KEY = "delta_lightning_config"
FREE_TO_DIFFER = ("run_dir", "ckpt_path", "weights_only", "verbose")
SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is read from a checkpoint before a run: the optimiser step, and the config as it was saved, if it was."""

    step: int
    config: Mapping[str, Any] | None


def read_checkpoint(path: str) -> Checkpoint:
    """The head of a checkpoint, a file or a folder of a sharded one. Raises `ConfigError` if it is none."""
    file = Path(path) / "meta.pt" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ConfigError(
            f"--ckpt_path={path}", wanted="a checkpoint of this trainer", got="nothing there", remedy=_others(Path(path))
        )
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        step, text = int(stored["global_step"]), stored.get(CONFIG_KEY)
    except Exception as error:  # unreadable files raise a dozen kinds of error; all mean this
        raise ConfigError(
            f"--ckpt_path={path}", wanted="a checkpoint of this trainer", got=f"a file that is none ({type(error).__name__})",
            remedy="It may have been cut off while it was written; resume from an earlier one.",
        ) from error  # fmt: skip
    return Checkpoint(step=step, config=yaml.safe_load(text) if text else None)


def differences(stored: Mapping[str, Any], present: Mapping[str, Any]) -> str | None:
    """One line about settings that differ from those of the checkpoint's run; the present ones are used."""
    before, now = dict(_flat(stored)), dict(_flat(present))
    changed = [key for key in [*before, *(key for key in now if key not in before)] if before.get(key) != now.get(key)]
    if not changed:
        return None
    shown = ", ".join(f"{key} ({before.get(key)} -> {now.get(key)})" for key in changed[:SHOWN])
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"settings differ from the checkpoint's run, the present ones are used: {shown}{more}"


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            if prefix or key not in FREE_TO_DIFFER:
                yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _others(path: Path) -> str:
    near = sorted(str(other) for other in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
    return f"There are: {', '.join(near[-3:])}." if near else "Checkpoints end in .ckpt and lie in a run folder's checkpoints/."
