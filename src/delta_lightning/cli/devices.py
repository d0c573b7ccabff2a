"""Which strategy a run has that names none, and Lightning's refusals of trainer settings in this project's words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry

from delta_lightning.cli.messages import nearest
from delta_lightning.errors import ConfigError, require
from delta_lightning.strategies import FSDP2Strategy

AUTO = "auto"
ACCELERATORS = (AUTO, "cpu", "gpu", "cuda", "mps")
GPUS = re.compile(r"-1|\[\d+(, *\d+)*\]|\d+,|\d+(, *\d+)+")  # all of them, or their indices


@contextmanager
def accepted() -> Iterator[None]:
    """Lightning's errors about settings of its trainer, raised inside the block, become `ConfigError`."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        raise ConfigError(
            "trainer", wanted="settings that Lightning accepts", got=str(error).rstrip("."),
            remedy="See delta-lightning fit --help.",
        ) from error  # fmt: skip


def check_devices(accelerator: str, devices: Any) -> None:
    """Refuses an accelerator that is not here, and what is no number of devices. Raises `ConfigError`."""
    known = (*ACCELERATORS, *AcceleratorRegistry.available_accelerators())  # packages bring others
    require(accelerator in known, "trainer.accelerator", wanted=f"one of {', '.join(ACCELERATORS)}", got=accelerator,
            remedy=nearest(accelerator, ACCELERATORS).strip() or "Leave it out, which takes what is there.")  # fmt: skip
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    here = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(accelerator, True)
    require(here, "trainer.accelerator", wanted="one that torch finds on this machine", got=accelerator,
            remedy="Leave it out, which takes what is there. See nvidia-smi and torch.cuda.is_available().")  # fmt: skip
    processes = accelerator == "cpu" or (accelerator == AUTO and not (cuda or mps))
    text = str(devices)
    number = text == AUTO or (text.isdigit() and int(text) > 0)
    wanted = f"{AUTO}, or a number of at least 1" + ("" if processes else "; -1 for all GPUs, a list such as [0, 2] for some")
    require(number or (not processes and GPUS.fullmatch(text) is not None), "trainer.devices", wanted=wanted, got=devices,
            remedy="Leave it out for auto: one process on CPUs, every GPU there is.")  # fmt: skip


def check_nodes(trainer: Trainer) -> None:
    """Refuses several nodes where no launcher says how they find one another: each would wait for the others, without a word.

    Raises `ConfigError`.
    """
    around = getattr(trainer.strategy, "cluster_environment", None)
    alone = isinstance(around, LightningEnvironment) and "MASTER_ADDR" not in os.environ
    require(trainer.num_nodes == 1 or not alone, "trainer.num_nodes", wanted="1 without a launcher and without MASTER_ADDR",
            got=trainer.num_nodes, remedy="Start the run with torchrun or srun on every node; or by hand, with MASTER_ADDR, "
            "MASTER_PORT and NODE_RANK set on each.")  # fmt: skip


def settle_strategy(trainer: Any) -> str | None:
    """Puts `fsdp2` in place of `auto` where there are several devices; gives a line for people if it did.

    Lightning itself counts the devices: those of `devices` ("auto", -1 and lists of indices too), on every node. With one,
    `auto` stays: the run is on that device, without any process group. An accelerator given as a class is left to Lightning.

    Args:
        trainer: the parsed settings of Lightning's trainer; changed in place.

    Raises:
        ConfigError: there are no such devices.
    """
    if not isinstance(trainer["accelerator"], str):
        return None
    check_devices(trainer["accelerator"], trainer["devices"])
    if trainer["strategy"] != AUTO:
        return None
    nodes = trainer["num_nodes"]
    with accepted():
        counted = Trainer(
            accelerator=trainer["accelerator"], devices=trainer["devices"], num_nodes=nodes, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ).num_devices * nodes  # fmt: skip
    if counted == 1:
        return None
    trainer["strategy"] = FSDP2Strategy.strategy_name
    return f"strategy: fsdp2, the model sharded over {counted} devices (--trainer.strategy=ddp keeps it whole on each)"
