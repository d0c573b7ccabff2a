"""The trained policy as a folder that `transformers` loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from delta_lightning.errors import require
from delta_lightning.models.sharding import sharding_of
from delta_lightning.trainer.callbacks.atomic import whole


class HFExport(pl.Callback):
    """When training ends, writes the policy (safetensors) and its tokenizer to a folder of the run folder.

    `AutoModelForCausalLM.from_pretrained(folder)` and `AutoTokenizer.from_pretrained(folder)` load it. It is written beside its
    place and renamed when complete.

    Args:
        folder: name, inside the run folder (`trainer.default_root_dir`).
    """

    def __init__(self, folder: str = "export") -> None:
        require(bool(folder.strip()), "HFExport.folder", wanted="a name", got=folder, remedy='"export" is usual.')
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather the weights on rank 0 and write them. Raises `RunError` if they cannot be written."""
        module: Any = pl_module
        cut = trainer.world_size > 1 or sharding_of(module.policy) is not None
        weights = _full_weights(module.policy) if cut else None
        if trainer.is_global_zero:
            with whole(Path(trainer.default_root_dir) / self.folder, "the export") as partial:
                _save(module.policy, module.tokenizer, partial, weights)
        trainer.strategy.barrier("export")


def _save(policy: Any, tokenizer: Any, folder: Path, weights: dict[str, Any] | None) -> None:
    """Without the progress bar of `transformers`, which would write over ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        policy.save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)  # safetensors writes for the owner alone


def _full_weights(policy: Any) -> dict[str, Any]:
    """Unsharded weights in main memory, on rank 0. Collective."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(policy, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
