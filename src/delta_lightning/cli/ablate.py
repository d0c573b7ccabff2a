"""`delta-lightning ablate`: the config of a run, a list of credit assigners, and a folder for what is found."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from delta_lightning.ablation.labels import labelled
from delta_lightning.ablation.module import AblationData, AblationModule, Request, check_assigners
from delta_lightning.ablation.picture import draw
from delta_lightning.ablation.recording import Recording
from delta_lightning.ablation.summary import Sizes
from delta_lightning.ablation.tables import page, terminal
from delta_lightning.cli import checkpoint_path, preflight, resume, run_folder
from delta_lightning.cli.app import DeltaCLI, say
from delta_lightning.credit import Delta, EntropyTopK, Random, SequenceMean, Shuffle, Uniform
from delta_lightning.errors import RunError, require
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.report.provenance import provenance
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.trainer.base_state import refuse_other_adapter
from delta_lightning.trainer.callbacks.atomic import whole
from delta_lightning.trainer.datamodule import PromptData

COMMAND = "ablate"
OUTPUT = f"ablations/{run_folder.NOW}"
ROLLOUTS, REPORT, PAGE, PICTURE, ANSWERS = "rollouts.pt", "report.json", "report.md", "report.png", "answers.html"
SINGLE = re.compile(r"--assigners=(?=[A-Za-z_][\w.]*$)")


def default_assigners() -> dict[str, CreditAssigner]:
    """What is compared when nothing is said: the baseline, the published method, what takes it apart, and controls."""
    return {
        "Uniform": Uniform(),
        "Delta": Delta(),
        "Delta(refinements=0)": Delta(refinements=0),
        "Shuffle(Delta)": Shuffle(assigner=Delta()),
        "SequenceMean(Delta)": SequenceMean(assigner=Delta()),
        "Random": Random(),
        # Kept tokens count 1 and not 5: gradients point the same way, and the histograms' common axis shows the others too.
        "EntropyTopK": EntropyTopK(denominator="all"),
    }


class AblationTrainer(Trainer):
    """Lightning's trainer, of which an ablation uses the device."""

    def ablate(
        self,
        model: Any = None,
        datamodule: Any = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        assigners: list[CreditAssigner] | dict[str, CreditAssigner] | None = None,
        rollouts: str | None = None,
        output: str = OUTPUT,
        step: int | None = None,
        gradient_gib: float = 8.0,
        sizes: Sizes = Sizes(),  # noqa: B008
    ) -> None:
        """Compare credit assigners on the identical rollouts and weights.

        Args:
            model: the policy. datamodule: the prompts.
            ckpt_path: checkpoint of a run, whose policy samples and is scored; without it, the model as configured.
            weights_only: as in fit.
            assigners: credit assigners, as a list or as a mapping of names; without it, DelTA, its baseline and controls.
            rollouts: a recording (rollouts.pt) of an earlier ablation with the same weights, to be replayed.
            output: folder of the report, new or empty; {now} becomes the date and time.
            step: rollout step whose prompts are sampled, from 0; without it, the one after the checkpoint.
            gradient_gib: memory for gradients, GiB; with less, more passes over the rollouts are made.
            sizes: of what is written.
        """
        raise NotImplementedError  # only the signature is read; `AblateCLI.ablate` does the work


class AblateCLI(DeltaCLI):
    """Parses, checks, records and replays."""

    module_class = AblationModule
    data_class = AblationData
    trainer_with_subcommands = AblationTrainer
    model: AblationModule
    assigners: dict[str, CreditAssigner]
    recording: Recording | None = None
    text: str  # the resolved config as YAML

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """`ablate`, with the arguments that it gives itself."""
        return {COMMAND: {"model", "datamodule"}}

    def before_instantiate_classes(self) -> None:
        """Checks of the config as a whole, and the folder's name."""
        settings = self.settings
        preflight.check_trainer(settings.trainer)
        if settings.ckpt_path is not None:
            self.checkpoint = resume.read_checkpoint(settings.ckpt_path)
            checkpoint_path.refuse_damage(Path(settings.ckpt_path), 0, say)
        self.folder = Path(settings.output.replace(run_folder.NOW, time.strftime("%Y%m%d-%H%M%S"))).absolute()
        settings["output"] = str(self.folder)
        kept = settings.clone()
        kept["output"] = OUTPUT  # so that the file starts the same ablation anew
        self.text = str(self._parser(COMMAND).dump(kept, skip_unset=False, format="yaml"))
        # The config's own credit plays no part, so it must not be refused beside a loss that some assigners suit.
        settings["model"]["credit"] = Namespace(  # type: ignore[no-untyped-call]
            class_path=f"{Uniform.__module__}.{Uniform.__name__}"
        )

    def before_ablate(self) -> None:
        """Everything that can be refused is refused here, before a model loads."""
        settings, module = self.settings, self.model
        require(self.trainer.world_size == 1, "trainer.devices", wanted="1: an ablation runs on one device",
                got=self.trainer.world_size, remedy="Use --trainer.devices=1.")  # fmt: skip
        require(not isinstance(self.trainer.strategy, FSDP2Strategy), "trainer.strategy", wanted="auto, for whole gradients",
                got="fsdp2", remedy="Leave it out; begin from the run's export.")  # fmt: skip
        export = f"Begin from the model that delta-lightning export --ckpt_path={settings.ckpt_path} writes."
        preflight.check_checkpoint(settings.ckpt_path, self.trainer.strategy, export)
        if self.checkpoint is not None:
            refuse_other_adapter(self.checkpoint.adapter, module.adapter)
        check_output(self.folder)
        require(settings.gradient_gib >= 0, "--gradient_gib", wanted="at least 0", got=settings.gradient_gib, remedy="Try 8.")
        require(settings.step is None or settings.step >= 0, "--step", wanted="at least 0", got=settings.step,
                remedy="Leave it out for the step after the checkpoint.")  # fmt: skip
        given = self._get(self.config_init, "assigners")
        self.assigners = default_assigners() if given is None else labelled(given)
        check_assigners(module, self.assigners)
        if settings.rollouts is not None:
            self.recording = Recording.load(settings.rollouts)
            self.recording.check_temperature(module.plan.sampling.temperature)
            recorded, present = (yaml.safe_load(text)["model"] for text in (self.recording.config, self.text))
            self.recording.check_settings(recorded, present)
            require(settings.step in (None, self.recording.step), "--step", wanted=f"{self.recording.step}, that of --rollouts",
                    got=settings.step, remedy="Leave it out.")  # fmt: skip
        preflight.check_inputs(module, self.datamodule, rank=0)

    def ablate(self, model: AblationModule, datamodule: PromptData, ckpt_path: str | None = None, **options: Any) -> None:
        """Record or load, replay, write."""
        assert self.folder is not None
        trained = self.checkpoint.step // model.plan.cut.updates if self.checkpoint is not None else 0
        rollouts = self.folder / ROLLOUTS
        model.request = Request(
            assigners=self.assigners, step=trained if options["step"] is None else options["step"], recording=self.recording,
            config=self.text, gradient_gib=options["gradient_gib"], sizes=options["sizes"],
            keep=lambda recording: recording.save(rollouts),
        )  # fmt: skip
        try:
            with model.memory.explained("loading, sampling or comparing gradients (--gradient_gib)"):
                self.trainer.predict(model, datamodule=datamodule, ckpt_path=ckpt_path, return_predictions=False)
        finally:
            model.close()
            if model.findings is None and rollouts.exists():
                say(f"the rollouts are kept: --rollouts={rollouts}")
        if model.findings is None:
            raise RunError("the ablation ended before it found anything")
        found = model.findings
        write(self.folder, {
            REPORT: json.dumps(found.summary, indent=1, ensure_ascii=False) + "\n",
            PAGE: page(found.summary),
            ANSWERS: found.answers,
            run_folder.CONFIG: self.text,
            "provenance.json": json.dumps(provenance(seeds={"seed": found.recording.seed}), indent=1) + "\n",
        })  # fmt: skip
        with whole(self.folder / PICTURE, "the picture") as partial:
            draw(found.summary, partial)
        if not found.summary["rollouts"]["tokens_signal"]:
            say("no answer has an advantage other than 0: there is nothing to credit. Try another --step, or a warm start.")
        sys.stdout.write(f"\n{terminal(found.summary)}\n\n{_whereabouts(self.folder, rollouts=self.settings.rollouts)}\n")

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Lightning reads a subcommand's arguments off the trainer's method of that name."""
        self.trainer_class = self.trainer_with_subcommands
        super()._add_subcommands(parser, **kwargs)


def each_appends(args: Sequence[str]) -> list[str]:
    """`--assigners=A --assigners=B` and `--assigners A`, a bare class name each, become `--assigners+=A --assigners+=B`."""
    joined: list[str] = []
    for arg in args:
        if joined and joined[-1] == "--assigners":
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return [SINGLE.sub("--assigners+=", arg) for arg in joined]


def check_output(folder: Path | None) -> None:
    """Refuses a folder that holds anything or cannot be written to; creates nothing. Raises `ConfigError`."""
    assert folder is not None
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    require(free, "--output", wanted="a new or empty folder", got=str(folder),
            remedy="Nothing is overwritten: choose another, or leave it out for ablations/{now}.")  # fmt: skip
    run_folder.check_writable(folder, "--output")


def write(folder: Path, texts: dict[str, str]) -> None:
    """Each text to its file, whole or not at all."""
    for name, text in texts.items():
        with whole(folder / name, "the report") as partial:
            partial.write_text(text, encoding="utf-8")


def _whereabouts(folder: Path, *, rollouts: str | None) -> str:
    lines = [
        (PAGE, "tables, with top and bottom tokens"), (PICTURE, "histograms and matrices"),
        (ANSWERS, "answers with every token coloured by its credit"), (REPORT, "all numbers"),
    ]  # fmt: skip
    lines += [(ROLLOUTS, "the recording: --rollouts")] if rollouts is None else []
    return "\n".join([f"In {folder}:", *(f"  {name.ljust(13)} {use}" for name, use in lines)])
