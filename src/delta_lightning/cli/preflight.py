"""What is checked before a model loads, cheapest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy

from delta_lightning.cli.messages import nearest
from delta_lightning.errors import ConfigError, refuse, require
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.checks import check_prompt_count, check_room
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule
from delta_lightning.trainer.progress import Progress

# Trainer settings that would contradict the step: (setting, values that are fine, what to do instead). The last value that is
# fine is the one to name.
CONTRADICTIONS: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("gradient_clip_val", (None,), "The module clips by the global norm itself: use --model.max_grad_norm."),
    ("gradient_clip_algorithm", (None,), "The module clips by the global norm: use --model.max_grad_norm."),
    ("precision", (None, 32, "32", "32-true"), "Autocast would make old and new log-probabilities differ: leave it out."),
    ("limit_train_batches", (None, 1.0), "An epoch is one whole rollout step: use --model.prompts_per_step."),
    ("overfit_batches", (0, 0.0), "An epoch is one whole rollout step: use --trainer.max_epochs."),
    ("fast_dev_run", (False, 0), "It would stop inside a rollout step: use --trainer.max_epochs=1."),
    ("reload_dataloaders_every_n_epochs", (0,), "The rollout loader keeps its place: leave it out."),
    ("val_check_interval", (None, 1.0), "Evaluation falls between rollout steps: use --trainer.check_val_every_n_epoch."),
    ("log_every_n_steps", (None, 1), "A rollout step's metrics stand beside one optimiser step: leave it out."),
    ("barebones", (False,), "It turns metrics and checkpoints off: leave it out."),
)

STRATEGIES = ("auto", "fsdp2", "ddp", "single_device")


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Refuses settings of Lightning's trainer that contradict this one. Raises `ConfigError`."""
    for name, fine, remedy in CONTRADICTIONS:
        value = settings.get(name)
        if value not in fine:
            refuse(ConfigError(f"trainer.{name}", wanted=str(fine[-1]), got=repr(value), remedy=remedy))
    strategy = settings.get("strategy")
    name = (strategy if isinstance(strategy, str) else str(getattr(strategy, "class_path", "")).rpartition(".")[2]).lower()
    if name.startswith("fsdp") and not name.startswith("fsdp2"):
        refuse(ConfigError(
            "trainer.strategy", wanted="fsdp2", got=str(name),
            remedy="Lightning's fsdp is FSDP1, which can neither sample nor clip here: use --trainer.strategy=fsdp2.",
        ))  # fmt: skip
    elif isinstance(strategy, str):
        require(name in STRATEGIES or name.startswith("ddp_"), "trainer.strategy", wanted=f"one of {', '.join(STRATEGIES)}",
                got=strategy, remedy=nearest(name, STRATEGIES).strip() or "auto is fsdp2 on several devices.")  # fmt: skip
    devices = str(settings.get("devices"))
    require(name != "single_device" or not devices.isdigit() or int(devices) == 1, "trainer.devices",
            wanted="1, since the strategy is single_device", got=devices, remedy="Leave the strategy out.")  # fmt: skip


def check_best(best: str | None, trainer: Mapping[str, Any]) -> None:
    """Refuses a held-out metric to choose the best checkpoint by where no evaluation falls into training. Raises `ConfigError`.

    Args:
        best: the setting checkpoint.best. trainer: settings of Lightning's trainer.
    """
    every, steps = trainer["check_val_every_n_epoch"], trainer["max_epochs"]
    batches = trainer["limit_val_batches"]
    never = batches == 0 or (None not in (every, steps) and 0 <= steps < every)
    require(best is None or not best.startswith("held_out/") or not never, "checkpoint.best",
            wanted="a held-out evaluation in training, to choose by its metric",
            got=f"{best} with check_val_every_n_epoch={every}, max_epochs={steps}, limit_val_batches={batches}",
            remedy="Lower --trainer.check_val_every_n_epoch, or leave checkpoint.best out.")  # fmt: skip


READ_SHARDS = "Use --trainer.strategy=fsdp2, which one device can do too, or begin from the run's export."


def check_checkpoint(ckpt_path: str | None, strategy: Strategy, remedy: str = READ_SHARDS) -> None:
    """Refuses the folder of a sharded run where it cannot be read. Raises `ConfigError`."""
    if ckpt_path is not None and Path(ckpt_path).is_dir() and not isinstance(strategy, FSDP2Strategy):
        raise ConfigError(
            "--ckpt_path", wanted="a file, since only fsdp2 reads the parts of a sharded run", got=f"the folder {ckpt_path}",
            remedy=remedy,
        )  # fmt: skip


def check_optimizer(module: PolicyModule) -> None:
    """Builds the optimiser and the schedule once, on a lone parameter: their own range checks would come after the model."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    setting = "model.optimizer"
    try:
        optimizer = module.make_optimizer([parameter])
        setting = "model.scheduler"
        if module.make_scheduler is not None:
            module.make_scheduler(optimizer)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            setting, wanted="settings that it accepts", got=str(error).rstrip("."),
            remedy=f"See delta-lightning fit --{setting}.help=NAME.",
        ) from error  # fmt: skip
    require(not isinstance(optimizer, torch.optim.LBFGS), "model.optimizer", wanted="one that steps by one gradient",
            got="LBFGS, which asks for several", remedy="AdamW is usual.")  # fmt: skip


def check_inputs(module: PolicyModule, data: PromptData, *, rank: int, training: bool = True) -> None:
    """The model's files, the data's files, the verifier's needs, then every row of the data. Raises `ConfigError`.

    What was read is kept: neither the module nor the data module does it again.
    """
    module.backbone.check()
    data.source.check()
    module.progress = Progress.for_rank(rank)
    module.check_verifier()
    for line in [*module.sampler.check(), *check_adapter(module)]:
        module.progress.line(line)
    module.tokenizer = module.backbone.tokenizer()
    data.prepare(module.tokenizer, module.verifier, module.progress)
    if training:
        check_prompt_count(data, module.plan)
    check_room(data, module.plan, module.backbone.context_length())


def check_adapter(module: PolicyModule) -> Sequence[str]:
    """What the adapter found, if there is one; it must fit the model as far as that is known without its weights.

    Raises `ConfigError`.
    """
    if module.adapter is None:
        return ()
    lines = module.adapter.check()
    try:
        meta = module.backbone.meta()
    except ConfigError:  # a model of the Hub: the adapter is held to it once it is loaded
        return lines
    module.adapter.targets_in(meta)
    return lines
