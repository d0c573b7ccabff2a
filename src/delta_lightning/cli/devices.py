"""Which strategy a run has that names none, and Lightning's refusals of trainer settings in this project's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from delta_lightning.errors import ConfigError
from delta_lightning.strategies import FSDP2Strategy

AUTO = "auto"


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


def settle_strategy(trainer: Any) -> str | None:
    """Puts `fsdp2` in place of `auto` where there are several devices; gives a line for people if it did.

    Lightning itself counts the devices: those of `devices` ("auto", -1 and lists of indices too), on every node. With one,
    `auto` stays: the run is on that device, without any process group. An accelerator given as a class is left to Lightning.

    Args:
        trainer: the parsed settings of Lightning's trainer; changed in place.

    Raises:
        ConfigError: there are no such devices.
    """
    if trainer["strategy"] != AUTO or not isinstance(trainer["accelerator"], str):
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
