"""What `--ckpt_path` must be, and which settings hold when a run is resumed: the present ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from delta_lightning.errors import ConfigError, require
from delta_lightning.models.backbone import Backbone
from delta_lightning.models.stored_weights import CONFIGS, checkpoint_head
from delta_lightning.trainer import base_state
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule

CONFIG_KEY = "delta_lightning_config"
FREE_TO_DIFFER = ("run_dir", "ckpt_path", "weights_only", "verbose")
SHOWN = 6
SIZES = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "tie_word_embeddings",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is read from a checkpoint before a run: the optimiser step, the config as it was saved, if it was, and the data.

    `data` is the state of the data module: position in the data, and their checksum. `adapter` is what an adapter that it holds
    belongs to (`trainer/base_state.py`), `model` the config of the model, if the checkpoint has it. `finished` is the number
    of rollout steps that had ended.
    """

    step: int
    finished: int = 0
    config: Mapping[str, Any] | None
    data: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None


def read_checkpoint(path: str) -> Checkpoint:
    """The head of a checkpoint, a file or a folder of a sharded one. Raises `ConfigError` if it is none."""
    try:
        stored = checkpoint_head(Path(path))
        step, text = int(stored["global_step"]), stored.get(CONFIG_KEY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"--ckpt_path={path}", wanted="a checkpoint of this trainer", got="nothing there", remedy=_others(Path(path))
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # unreadable files raise a dozen kinds of error; all mean this
        raise ConfigError(
            f"--ckpt_path={path}", wanted="a checkpoint of this trainer", got=f"a file that is none ({type(error).__name__})",
            remedy="It may have been cut off while it was written; resume from an earlier one.",
        ) from error  # fmt: skip
    model = json.loads(stored[CONFIGS]["config"]) if CONFIGS in stored else None
    config, data = yaml.safe_load(text) if text else None, stored.get(PromptData.__qualname__, {})
    loop = stored.get("loops", {}).get("fit_loop", {})
    finished = int(loop["epoch_progress"]["current"]["processed"]) if loop else 0
    return Checkpoint(
        step=step, finished=finished, config=config, data=data, adapter=stored.get(base_state.KEY), model=model
    )  # fmt: skip


def refuse_other_course(checkpoint: Checkpoint, settings: Any) -> None:
    """Refuses an end that lies before the checkpoint, and another optimiser than its state is of. Raises `ConfigError`.

    Args:
        settings: the parsed config of this run.
    """
    end = settings.trainer.max_epochs
    require(end is None or end < 0 or end >= checkpoint.finished, "trainer.max_epochs",
            wanted=f"at least {checkpoint.finished}, the rollout steps that the checkpoint has behind it", got=end,
            remedy="Raise it, or take an earlier checkpoint; delta-lightning export gives the model of this one.")  # fmt: skip
    before = ((checkpoint.config or {}).get("model", {}).get("optimizer") or {}).get("class_path")
    now = settings.model.optimizer.class_path
    require(before in (None, now), "model.optimizer", wanted=f"the checkpoint's, {before}, whose state it holds", got=now,
            remedy="Resume with that one, or begin a new run from an export of the checkpoint.")  # fmt: skip


def refuse_other_model(stored: Mapping[str, Any] | None, backbone: Backbone) -> None:
    """Refuses a model of other sizes than the checkpoint's, where they are known before it loads. Raises `ConfigError`.

    Args:
        stored: config of the checkpoint's model; None if it is not known.
        backbone: of this run; one from the Hub knows its sizes only when it has loaded.
    """
    if stored is None or not backbone.knows_sizes():
        return
    now = backbone.meta().config.to_dict()
    other = [name for name in SIZES if name in stored and name in now and stored[name] != now[name]]
    if other:
        raise ConfigError(
            "model.backbone", wanted=f"the model of the checkpoint, {_named(stored, other)}", got=_named(now, other),
            remedy="Resume with the backbone of that run (config.yaml in its folder), or begin a new one.",
        )  # fmt: skip


def _named(config: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {config[name]}" for name in names)


def differences(stored: Mapping[str, Any], present: Mapping[str, Any]) -> str | None:
    """One line about settings that differ from those of the checkpoint's run; the present ones are used."""
    before, now = dict(_flat(stored)), dict(_flat(present))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    swapped = tuple(key.removesuffix("class_path") for key in changed if key.endswith("class_path"))
    changed = [key for key in changed if key.endswith("class_path") or not key.startswith(swapped)]
    if not changed:
        return None
    shown = ", ".join(f"{key} ({before.get(key)} -> {now.get(key)})" for key in changed[:SHOWN])
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    schedule = "; but the learning rate's schedule goes on as it was" if present["model"].get("scheduler") else ""
    return f"settings differ from the checkpoint's run, the present ones are used: {shown}{more}{schedule}"


class PresentOptimizer(Callback):
    """Gives a restored optimiser the settings of the present config: its own state brings those of the checkpoint along.

    Under a schedule the learning rate is left alone: it belongs to the schedule's state.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the checkpoint was restored."""
        assert isinstance(pl_module, PolicyModule)
        settings = dict(pl_module.make_optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults)
        if pl_module.make_scheduler is not None:
            settings.pop("lr", None)
        optimizer = trainer.optimizers[0]
        for group in optimizer.param_groups:
            renew(group, settings)
        if trainer.global_step == 0:  # to save a sharded optimiser before its first step torch has it take one, without effect
            optimizer.state.clear()  # but on the count of steps, by which Adam corrects its bias


def renew(group: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Puts `settings` into a parameter group; a number kept as a tensor stays that tensor, as compiled optimisers demand."""
    for name, value in settings.items():
        if isinstance(group.get(name), torch.Tensor):
            group[name].fill_(value)
        else:
            group[name] = value


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            if prefix or key not in FREE_TO_DIFFER:
                yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _others(path: Path) -> str:
    folders = [folder for folder in (path.parent, path, path / "checkpoints") if folder.is_dir()]
    near = sorted(str(other) for folder in folders for other in folder.glob("[!.]*.ckpt") if other != path)
    return f"There are: {', '.join(near[-3:])}." if near else "Checkpoints end in .ckpt and lie in a run folder's checkpoints/."
