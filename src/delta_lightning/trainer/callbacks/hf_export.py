"""The trained policy as a folder that `transformers` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from delta_lightning.errors import RunError, require
from delta_lightning.models.export import exported_weights, readable, write_policy
from delta_lightning.trainer.callbacks.atomic import whole
from delta_lightning.trainer.callbacks.rollout_checkpoint import RolloutCheckpoint


class HFExport(Checkpoint):  # Lightning calls those last: by then the run's last checkpoint is there, given before it
    """When training ends, writes the policy (safetensors) and its tokenizer to a folder of the run folder.

    `AutoModelForCausalLM.from_pretrained(folder)` and `AutoTokenizer.from_pretrained(folder)` load it. It is written beside its
    place and renamed when complete. Of a sharded policy rank 0 holds one file of weights at a time, never the whole model.

    Args:
        folder: name, inside the run folder (`trainer.default_root_dir`).
        weights: of a policy with an adapter. "merged" is a whole model; "adapter" has what was trained alone, as the adapter's
            library reads it (`peft.PeftModel.from_pretrained(base, folder)` for LoRA).
    """

    def __init__(self, folder: str = "export", weights: Literal["merged", "adapter"] = "merged") -> None:
        require(bool(folder.strip()), "HFExport.folder", wanted="a name", got=folder, remedy='"export" is usual.')
        self.folder, self.weights = folder, weights
        self.written = False  # by this process

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse to export an adapter where there is none. Raises `ConfigError`."""
        require(
            self.weights == "merged" or getattr(pl_module, "adapter", None) is not None, "export.weights", wanted="merged",
            got=self.weights, remedy="There is no adapter: leave it out, or set --model.adapter=LoRA.",
        )  # fmt: skip

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the weights on rank 0, gathering one after another. Raises `RunError` if they cannot be written. Collective."""
        module: Any = pl_module
        alone = self.weights == "adapter"
        weights, done = exported_weights(module.policy, alone=alone), False
        try:
            if trainer.is_global_zero:
                with whole(Path(trainer.default_root_dir) / self.folder, "the export") as partial:
                    write_policy(partial, module.policy, weights, alone=alone)
                    module.tokenizer.save_pretrained(partial)
                    readable(partial)
            done = True
        except RunError as error:
            raise RunError(f"{error}{_instead(trainer)}") from error
        finally:  # also when the disk is full: the other ranks take part in every parameter that is left
            for _ in weights:
                pass
            everywhere = self.written = trainer.strategy.reduce_boolean_decision(done)
        if not everywhere:
            raise RunError("the export could not be written; rank 0 says why")


def _instead(trainer: pl.Trainer) -> str:
    """How to have the export all the same, from the last checkpoint."""
    callback = next((one for one in trainer.checkpoint_callbacks if isinstance(one, RolloutCheckpoint)), None)
    if callback is None or callback.latest is None:
        return ""
    checkpoint = Path(trainer.default_root_dir) / callback.folder / callback.latest
    return f" Training is saved; to export it: delta-lightning export --ckpt_path={checkpoint} --out=FOLDER"
