"""The trained policy as a folder that `transformers` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from delta_lightning.errors import RunError, require
from delta_lightning.models.export import gathered_weights, readable, write_model
from delta_lightning.trainer.callbacks.atomic import whole


class HFExport(pl.Callback):
    """When training ends, writes the policy (safetensors) and its tokenizer to a folder of the run folder.

    `AutoModelForCausalLM.from_pretrained(folder)` and `AutoTokenizer.from_pretrained(folder)` load it. It is written beside its
    place and renamed when complete. Of a sharded policy rank 0 holds one file of weights at a time, never the whole model.

    Args:
        folder: name, inside the run folder (`trainer.default_root_dir`).
    """

    def __init__(self, folder: str = "export") -> None:
        require(bool(folder.strip()), "HFExport.folder", wanted="a name", got=folder, remedy='"export" is usual.')
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the weights on rank 0, gathering one after another. Raises `RunError` if they cannot be written. Collective."""
        module: Any = pl_module
        weights, done = gathered_weights(module.policy), False
        try:
            if trainer.is_global_zero:
                with whole(Path(trainer.default_root_dir) / self.folder, "the export") as partial:
                    write_model(partial, weights, module.policy.config, module.policy.generation_config)
                    module.tokenizer.save_pretrained(partial)
                    readable(partial)
            done = True
        finally:  # also when the disk is full: the other ranks take part in every parameter that is left
            for _ in weights:
                pass
            everywhere = trainer.strategy.reduce_boolean_decision(done)
        if not everywhere:
            raise RunError("the export could not be written; rank 0 says why")
