"""`delta-lightning export`: the policy of a checkpoint as a folder that `transformers` and vLLM load."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from delta_lightning.cli import checkpoint_path, run_folder
from delta_lightning.cli.command import prepare, run_command, say, say_dropped
from delta_lightning.cli.config_files import ShortErrors
from delta_lightning.cli.config_parts import own_parts
from delta_lightning.cli.quiet import quiet
from delta_lightning.cli.resume import CONFIG_KEY, read_checkpoint
from delta_lightning.errors import ConfigError, require
from delta_lightning.models.adapted import attached, own_parameters
from delta_lightning.models.adapter import Adapter
from delta_lightning.models.backbone import Backbone, Demonstration, LoadContext
from delta_lightning.models.export import exported_weights, readable, write_model, write_policy
from delta_lightning.models.stored_weights import (
    CONFIGS,
    checkpoint_head,
    names_of,
    restored_configs,
    stored_names,
    stored_tensors,
)
from delta_lightning.trainer.base_state import KEY, refuse_other_base
from delta_lightning.trainer.callbacks.atomic import whole
from delta_lightning.trainer.progress import Progress

DESCRIPTION = """\
Writes the policy of a checkpoint, a file or the folder of a sharded run, as safetensors with its config and its tokenizer. It
runs in one process without a GPU, whatever made the checkpoint, and holds one file of weights at a time; only an adapter needs
its whole base."""
_OWN = ("backbone", "adapter", "seed")


def run(args: Sequence[str]) -> int:
    """Run the command with these arguments; every error made on purpose ends in one message and an exit code."""
    return run_command(lambda: _parse_and_export(args), interrupted="interrupted; nothing was written")


def _parse_and_export(args: Sequence[str]) -> int:
    quiet()
    prepare(args, ("models",))
    given = own_parts(args, _OWN)
    settings = _parser().parse_args(given)
    for name in ("ckpt_path", "out"):
        require(
            bool(settings[name]), f"--{name}", wanted="a path", got=settings[name], remedy="See delta-lightning export --help."
        )
    checkpoint, out = Path(settings.ckpt_path), Path(settings.out)
    require(not out.exists(), "--out", wanted="a folder that is not there yet", got=str(out),
            remedy="Nothing is overwritten: name another, or remove it.")  # fmt: skip
    run_folder.check_writable(out, "--out")
    read_checkpoint(str(checkpoint))
    checkpoint_path.refuse_damage(checkpoint, 0, say)
    if settings.backbone is None:
        config = checkpoint_head(checkpoint).get(CONFIG_KEY)
        if config is None:
            raise ConfigError("--config", wanted="the run's config, which this checkpoint does not hold", got="none",
                              remedy="Give the config.yaml of the run folder.")  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "config.yaml")
            file.write_text(config, encoding="utf-8")
            settings = _parser().parse_args([*own_parts([f"--config={file}"], _OWN), *given])
    say_dropped()
    return _export(checkpoint, out, _parser().instantiate_classes(settings))


def _parser() -> ArgumentParser:
    ShortErrors.roots = {"backbone": Backbone, "adapter": Adapter | None}
    parser = ShortErrors(prog="delta-lightning export", description=DESCRIPTION)
    parser.add_argument("--config", action="config", help="Config of the run; by default the one in the checkpoint.")
    parser.add_argument("--ckpt_path", type=str, default=None, help="The checkpoint.")
    parser.add_argument("--out", type=str, default=None, help="Folder to write; it must not exist.")
    parser.add_argument("--weights", type=Literal["merged", "adapter"], default="merged",
                        help="Of a run with an adapter: a whole model, or the adapter alone.")  # fmt: skip
    parser.add_argument("--backbone", type=Backbone | None, default=None, help="The model; its tokenizer is exported.")
    parser.add_argument("--adapter", type=Adapter | None, default=None, help="The adapter.")
    parser.add_argument("--seed", type=int, default=0, help="Of the run: of a base with random weights.")
    return parser


def _export(checkpoint: Path, out: Path, settings: Any) -> int:
    alone = settings.weights == "adapter"
    require(not alone or settings.adapter is not None, "--weights", wanted="merged", got=settings.weights,
            remedy="This run had no adapter: leave it out.")  # fmt: skip
    context = LoadContext(seed=settings.seed, demonstrations=_no_data, tick=Progress.for_rank(0), say=say)
    write(checkpoint, out, backbone=settings.backbone, adapter=settings.adapter, context=context, alone=alone)
    say(f"exported {checkpoint} to {out}")
    return 0


def write(
    checkpoint: Path, out: Path, *, backbone: Backbone, adapter: Adapter | None, context: LoadContext, alone: bool
) -> None:
    """Write the policy of a whole checkpoint to `out`, `alone` its adapter only.

    `context` is for the base of an adapter, which is loaded.
    """
    tokenizer, head = backbone.tokenizer(), checkpoint_head(checkpoint)
    policy: Any = _adapted(checkpoint, head, backbone, adapter, context) if adapter is not None or KEY in head else None
    with whole(out, "the export") as partial:
        if policy is None:
            _write_stored(partial, checkpoint, head, backbone)
        else:
            write_policy(partial, policy, exported_weights(policy, alone=alone), alone=alone)
        tokenizer.save_pretrained(partial)
        readable(partial)


def _write_stored(folder: Path, checkpoint: Path, head: dict[str, Any], backbone: Backbone) -> None:
    if CONFIGS in head:
        config, generation = restored_configs(head[CONFIGS])
    else:  # a checkpoint of an earlier version
        config, generation = backbone.meta().config, None
    names, found = names_of(config), set(stored_names(checkpoint))
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigError(
            "--config", wanted="the model of the checkpoint", got=f"one with {len(missing)} others, such as {missing[0]}",
            remedy="Leave --config out: the checkpoint holds it.",
        )  # fmt: skip
    write_model(folder, _shown(stored_tensors(checkpoint, names), len(names)), config, generation)


def _adapted(checkpoint: Path, head: dict[str, Any], backbone: Backbone, adapter: Adapter | None, context: LoadContext) -> Any:
    """The base with the checkpoint's adapter. Raises `ConfigError` for another base or adapter."""
    policy = attached(backbone.load(context), adapter)
    refuse_other_base(head, policy)
    own = dict(own_parameters(policy))
    with torch.no_grad():
        for name, value in stored_tensors(checkpoint, list(own)):
            own[name].copy_(value)
    return policy


def _no_data() -> Iterable[Demonstration]:
    raise ConfigError(
        "--ckpt_path", wanted="an adapter whose base can be loaded alone", got="a base that is warm-started on data",
        remedy="The run writes its export itself when it ends: resume it, if it has not ended.",
    )  # fmt: skip


def _shown(tensors: Iterator[tuple[str, Tensor]], total: int) -> Iterator[tuple[str, Tensor]]:
    progress = checkpoint_path.ticker(0, "exporting, tensors", 0)
    for number, pair in enumerate(tensors, 1):
        progress(number, total)
        yield pair
