"""`delta-lightning fit` and `validate`: Lightning's CLI with the published method as its defaults and its traps closed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from delta_lightning.cli import checkpoint_path, export, preflight, resume, run_folder, strategy_option, swap
from delta_lightning.cli.command import prepare, run_command
from delta_lightning.cli.config_files import ShortErrors
from delta_lightning.cli.devices import accepted, check_nodes, settle_strategy
from delta_lightning.cli.failures import debugging, hush_writers, rank
from delta_lightning.cli.quiet import quiet
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.models.stored_weights import CONFIGS, model_configs
from delta_lightning.report.provenance import provenance
from delta_lightning.trainer.base_state import refuse_other_adapter
from delta_lightning.trainer.callbacks import GracefulStop, HFExport, RolloutCheckpoint, RunReport
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.module import PolicyModule

# Importing parts is what makes their short names known. `verifiers` imports nothing by itself: worker processes stay light.
PARTS = (
    "advantages", "corrections", "credit", "data", "filters", "losses", "models", "samplers", "shaping", "strategies",
    "verifiers.parts",
)  # fmt: skip

PUBLISHED_METHOD: dict[str, Any] = {
    "model.credit": {"class_path": "Delta"},
    "model.advantage": {"class_path": "GroupStandardised"},
    "model.loss": {"class_path": "ClippedSurrogate"},
    "model.weighting": {"class_path": "Constant"},
    "model.reduction": {"class_path": "TokenMean"},
    "model.correction": {"class_path": "NoCorrection"},
    "model.sampler": {"class_path": "HFSampler"},
    "model.verifier": {"class_path": "MathVerifier"},
    "model.optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-6, "weight_decay": 0.1}},
}

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 220,  # rollout steps; the paper's 8B run
    "check_val_every_n_epoch": 4,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "enable_progress_bar": False,  # the trainer has its own
    "enable_model_summary": False,
    "inference_mode": False,  # tensors that evaluation caches must be usable in training
}

Kind = TypeVar("Kind")


def say(line: str) -> None:
    """A line on stderr, from rank 0."""
    if rank() == 0:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class DeltaParser(ShortErrors, LightningArgumentParser):
    """Lightning's parser; an error is one short message on stderr and exit code 2."""


class RunConfig(SaveConfigCallback):
    """Writes config and environment into the run folder, and the config into every checkpoint, to be compared on a resume."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once, on rank 0, when the run begins."""
        folder = Path(self.config.run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / run_folder.CONFIG).write_text(self.text(), encoding="utf-8")
        module: Any = pl_module
        with (folder / run_folder.ENVIRONMENT).open("a", encoding="utf-8") as file:
            file.write(json.dumps(provenance(seeds={"seed": module.plan.seed})) + "\n")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the config to the checkpoint, and the model's own."""
        checkpoint[resume.CONFIG_KEY] = self.text()
        module: Any = pl_module
        checkpoint[CONFIGS] = model_configs(module.policy)

    def text(self) -> str:
        """The config as YAML."""
        return config_text(self.parser, self.config)


def config_text(parser: LightningArgumentParser, config: Any) -> str:
    """The resolved config as YAML; it starts the same run anew once `run_dir` is changed, so `ckpt_path` is left out."""
    kept = config.clone()
    kept["ckpt_path"] = None
    return str(parser.dump(kept, skip_unset=False, format="yaml"))


class DeltaCLI(LightningCLI):
    """Parses, checks, builds and runs. Use `run` to have errors printed and turned into exit codes."""

    module_class: type[PolicyModule] = PolicyModule
    data_class: type[PromptData] = PromptData

    def __init__(self, args: Sequence[str]) -> None:
        self.folder: Path | None = None
        self.asked: str | None = None  # the setting ckpt_path as it was given
        self.told = False
        self.checkpoint: resume.Checkpoint | None = None
        self.claimed: IO[str] | None = None  # open while the run folder is this process's alone
        super().__init__(
            self.module_class,
            self.data_class,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=TRAINER_DEFAULTS | {"callbacks": [resume.PresentOptimizer()]},
            seed_everything_default=0,
            parser_class=DeltaParser,
            args=list(args),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    # Parsing ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Those that this trainer can do, with the arguments that it gives itself."""
        both = LightningCLI.subcommands()
        return {name: both[name] for name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run folder, what is kept in it, the published method, and settings that must agree."""
        parser.add_argument(
            "--run_dir",
            type=str,
            default=f"runs/{run_folder.NOW}",
            help="Folder of everything that the run writes; {now} becomes the date and time.",
        )
        parser.add_lightning_class_args(RolloutCheckpoint, "checkpoint")
        parser.add_lightning_class_args(HFExport, "export")
        parser.add_lightning_class_args(RunReport, "report")
        parser.add_lightning_class_args(GracefulStop, "stop")
        parser.set_defaults(PUBLISHED_METHOD)
        strategy_option.install(parser)
        parser.link_arguments("model.micro_batches", "trainer.accumulate_grad_batches")
        parser.link_arguments("model.seed", "seed_everything")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and say what a class swap dropped."""
        try:
            self.config = parser.parse_args(args)
        finally:
            for line in swap.take_dropped():
                say(line)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint's hyper-parameters beat the shell; here the shell wins (see `before_fit`)."""

    # Building --------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Any:
        """The parsed config of the subcommand."""
        return self.config[self.config.subcommand]

    def before_instantiate_classes(self) -> None:
        """Checks of the config as a whole, and the run folder's name."""
        preflight.check_trainer(self.settings.trainer)
        chosen = settle_strategy(self.settings.trainer)
        if chosen:
            say(chosen)
        template, self.asked = self.settings.run_dir, self.settings.ckpt_path
        self.told = checkpoint_path.told(os.environ)  # by the rank that started this one
        self.folder = run_folder.resolve(template, os.environ)
        self.settings["run_dir"] = str(self.folder)
        self.settings["ckpt_path"] = checkpoint_path.resolve(
            self.asked, template=template, folder=self.folder / self.settings.checkpoint.folder, environment=os.environ,
            rank=rank(), nodes=self.settings.trainer.num_nodes, say=say,
        )  # fmt: skip
        if self.settings.ckpt_path not in (None, *checkpoint_path.WORDS):
            self.checkpoint = resume.read_checkpoint(self.settings.ckpt_path)

    def instantiate_trainer(self, **overrides: Any) -> Trainer:
        """The trainer, with everything it writes in the run folder; `validate` writes nothing."""
        assert self.folder is not None
        settings = self._get(self.config_init, "trainer")
        overrides["default_root_dir"] = str(self.folder)
        if self.subcommand != "fit":
            overrides["logger"], self.save_config_callback = False, None
        elif settings["logger"] in (None, True):
            overrides["logger"] = run_folder.loggers(self.folder)
        with accepted():
            trainer = super().instantiate_trainer(**overrides)
        check_nodes(trainer)
        return trainer

    # Running ---------------------------------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Everything that can be refused is refused here, before a model loads."""
        assert self.folder is not None
        preflight.check_checkpoint(self.settings.ckpt_path, self.trainer.strategy)
        preflight.check_best(self.settings.checkpoint.best, self.settings.trainer)
        preflight.check_optimizer(self.model)
        if rank() == 0:
            run_folder.check(self.folder, ckpt_path=self.settings.ckpt_path, anew=self.asked == checkpoint_path.LAST_IF_ANY)
        preflight.check_inputs(self.model, self.datamodule, rank=rank())
        if self.checkpoint is not None:
            resume.refuse_other_course(self.checkpoint, self.settings)
            resume.refuse_other_model(self.checkpoint.model, self.model.backbone)
            refuse_other_adapter(self.checkpoint.adapter, self.model.adapter)
            self.datamodule.refuse_changed(self.checkpoint.data)
        if rank() == 0:
            self.claimed = run_folder.claim(self.folder)
        if self.checkpoint is None:
            return
        if rank() == 0:
            run_folder.keep_metrics(self.folder, self.trainer.logger, before_step=self.checkpoint.step)
        if self.checkpoint.config is not None:
            present = config_text(self._parser(self.subcommand), self.settings)
            line = resume.differences(self.checkpoint.config, yaml.safe_load(present))
            if line:
                say(line)

    def before_validate(self) -> None:
        """See `before_fit`."""
        preflight.check_checkpoint(self.settings.ckpt_path, self.trainer.strategy)
        preflight.check_inputs(self.model, self.datamodule, rank=rank(), training=False)
        if self.checkpoint is not None:
            refuse_other_adapter(self.checkpoint.adapter, self.model.adapter)

    def fit(self, model: PolicyModule, datamodule: PromptData, **options: Any) -> None:
        """Train, with the held-out accuracy before (unless resuming) and after."""
        self._callback(GracefulStop).ends_process = True
        self._say_ranks()
        try:
            options["ckpt_path"] = self._checkpoint_of_all(model, options.get("ckpt_path"))
            with model.memory.explained("loading, sampling, assigning credit or updating"):
                if options["ckpt_path"] is None:
                    self.trainer.validate(model, datamodule=datamodule, verbose=False)
                    self._callback(RolloutCheckpoint).check_best(self.trainer)
                self.trainer.fit(model, datamodule=datamodule, **options)
                self._export_finished(model, options["ckpt_path"])
                if not _evaluated_last(self.trainer):
                    self.trainer.validate(model, datamodule=datamodule, verbose=False)
        finally:
            model.close()
            if self.claimed is not None:
                self.claimed.close()

    def validate(self, model: PolicyModule, datamodule: PromptData, **options: Any) -> None:
        """Held-out accuracy of the model as configured, or of a checkpoint."""
        self._say_ranks()
        try:
            options["ckpt_path"] = self._checkpoint_of_all(model, options.get("ckpt_path"))
            with model.memory.explained("loading or sampling"):
                self.trainer.validate(model, datamodule=datamodule, **options)
        finally:
            model.close()

    def _say_ranks(self) -> None:
        """Each loads its libraries and meets the others, which takes as long as the start so far."""
        if self.trainer.world_size > 1:
            say(f"starting {self.trainer.world_size} ranks")

    def _export_finished(self, model: PolicyModule, path: str | None) -> None:
        """Of a run that was killed after its last checkpoint nothing is left to train, and no end of training exports it."""
        callback = self._callback(HFExport)
        if path is None or callback.written or not self.trainer.is_global_zero:
            return
        assert self.folder is not None
        export.write(
            Path(path), self.folder / callback.folder, backbone=model.backbone, adapter=model.adapter,
            context=model.load_context(), alone=callback.weights == "adapter",
        )  # fmt: skip

    def _callback(self, kind: type[Kind]) -> Kind:
        """One of those that every run has (`add_arguments_to_parser`)."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        return next(one for one in callbacks if isinstance(one, kind))

    def _checkpoint_of_all(self, model: PolicyModule, path: str | None) -> str | None:
        """What rank 0 found, where a word and no path was given; ranks launched beside it have not looked."""
        asked = self.asked in checkpoint_path.WORDS and not self.told
        return checkpoint_path.agreed(self.trainer, model, path) if asked else path


def _evaluated_last(trainer: Trainer) -> bool:
    """True if the last rollout step ended with a held-out evaluation."""
    every = trainer.check_val_every_n_epoch
    return every is not None and trainer.val_check_interval == 1.0 and trainer.current_epoch % every == 0


def run(args: Sequence[str]) -> int:
    """Run the command line; every error made on purpose ends in one message and an exit code. Bugs keep their traceback."""
    return run_command(
        lambda: _parse_and_run(args),
        folder=lambda: Path(os.environ.get(run_folder.VARIABLE, ".")),
        interrupted="interrupted while no training was under way; nothing was lost",
    )


def _parse_and_run(args: Sequence[str]) -> int:
    if not debugging():
        quiet()
        hush_writers()
    DeltaParser.roots = {"model": PolicyModule, "data": PromptData, "trainer": Trainer}
    prepare(args, PARTS, say)
    if args[:1] == ["ablate"]:
        from delta_lightning.cli.ablate import AblateCLI, each_appends

        DeltaParser.roots["assigners"] = list[CreditAssigner]
        AblateCLI(each_appends(args))
    elif args[:1] == ["plan"]:
        from delta_lightning.cli.plan import PlanCLI

        return PlanCLI(args).code
    else:
        DeltaCLI(args)
    return 0
