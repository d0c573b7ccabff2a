"""`delta-lightning plan`: what a config's run would do and need, and what contradicts itself in it; nothing is loaded."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from delta_lightning.cli import preflight
from delta_lightning.cli.app import DeltaCLI
from delta_lightning.cli.devices import AUTO
from delta_lightning.data.prompts import make_prompts, refuse_long
from delta_lightning.errors import ConfigError, RunError, collected_errors, require
from delta_lightning.planning.machine import Machine, known_device
from delta_lightning.planning.page import PlanPage, gib, listed
from delta_lightning.planning.plan import Lengths, Planned
from delta_lightning.strategies import FSDP2Strategy
from delta_lightning.strategies.fsdp2 import DTYPES
from delta_lightning.trainer.checks import require_prompts
from delta_lightning.trainer.progress import Progress

COMMAND = "plan"
SAMPLED = 1000  # prompts whose lengths are looked at
# What follows from a refused value: a part that was built of it does not work.
CONSEQUENCES = (ConfigError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class PlanTrainer(Trainer):
    """Lightning's trainer; only the signature below is read."""

    def plan(
        self,
        model: Any = None,
        datamodule: Any = None,
        mfu: float = 0.4,
        flops: float | None = None,
        device: str | None = None,
        memory: float | None = None,
        length: int | None = None,
        devices: int | None = None,
        json: bool = False,
    ) -> None:
        """Sizes, memory, work and contradictions of a config's run, without loading anything.

        Args:
            model: the policy. datamodule: the prompts.
            mfu: model FLOPs utilisation of scoring and updates, in (0, 1].
            flops: of a device, per second at full speed, such as 989e12; without it and `device` no seconds are given.
            device: a100, h100, h200, b200, l40s or rtx4090: gives `flops` (dense bfloat16) and `memory`.
            memory: of a device, GiB; the plan says whether the run fits.
            length: mean tokens of a completion; without it every completion is as long as it may be.
            devices: instead of those of trainer.devices and trainer.num_nodes.
            json: print JSON in place of the table.
        """
        raise NotImplementedError  # `PlanCLI.plan` does the work


class PlanCLI(DeltaCLI):
    """Parses as `fit` does, builds the parts and no trainer, and prints the plan. `code` is the exit code."""

    trainer_with_subcommands = PlanTrainer

    def __init__(self, args: Sequence[str]) -> None:
        self.code, self._found = 0, list[str]()
        super().__init__(["--json=true" if arg == "--json" else arg for arg in args])

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """`plan`, with the arguments that it gives itself."""
        return {COMMAND: {"model", "datamodule"}}

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Lightning reads a subcommand's arguments off the trainer's method of that name."""
        self.trainer_class = self.trainer_with_subcommands
        super()._add_subcommands(parser, **kwargs)

    def _set_seed(self) -> None:
        """Nothing is drawn."""

    def before_instantiate_classes(self) -> None:
        """Checks of the trainer's settings; loggers and callbacks are not made."""
        settings = self.settings
        for name, least in (("length", 1), ("devices", 1), ("flops", 1.0), ("memory", 1e-6)):
            value = settings[name]
            require(value is None or value >= least, f"--{name}", wanted=f"at least {least:g}", got=value, remedy="Raise it.")
        require(0 < settings.mfu <= 1, "--mfu", wanted="a share in (0, 1]", got=settings.mfu, remedy="0.4 is usual.")
        with self._collecting():
            preflight.check_trainer(settings.trainer)
            preflight.check_best(settings.checkpoint.best, settings.trainer)
        settings.trainer["logger"], settings.trainer["callbacks"] = False, None

    def instantiate_classes(self) -> None:
        """The parts, without a trainer."""
        with self._collecting():
            self.config_init = self.parser.instantiate_classes(self.config)
            self.datamodule, self.model = self._get(self.config_init, "data"), self._get(self.config_init, "model")

    def _run_subcommand(self, subcommand: str) -> None:
        settings, progress, begun = self.settings, Progress.for_rank(0), time.monotonic()
        notes: list[str] = []
        with self._collecting():
            self._check(notes)
        if self._found:
            with self._collecting():
                self._lengths([])  # the data are held against the rest all the same
            self._say_found()
            return
        peak, capacity = (None, None) if settings.device is None else known_device(settings.device)
        peak, capacity = settings.flops or peak, settings.memory or capacity
        machine = self._machine(capacity)
        planned = Planned(self.model, machine, self._lengths(notes), progress)
        expected, worst = planned.sizes(worst=False), planned.sizes(worst=True)
        before, after = planned.memory(expected), planned.memory(worst)
        contradictions = [*self._found, *planned.contradictions(after)]
        if machine.memory is not None and not contradictions:
            left = gib(machine.memory - after.bytes)
            notes.insert(0, f"fits: {left} GiB of {gib(machine.memory)} are left in the worst case")
        rate, speed = _speed(peak, settings.mfu, machine.ranks)
        page = PlanPage(
            model=_model_rows(planned), expected=expected, worst=worst, memory_expected=before, memory_worst=after,
            work=planned.work(expected, rate),
            speed=speed,
            device_memory=machine.memory, notes=[*notes, *planned.notes(worst)], contradictions=contradictions,
        )  # fmt: skip
        progress.line(f"planned in {time.monotonic() - begun:.1f} s")
        sys.stdout.write(json.dumps(page.values(), indent=1) + "\n" if settings.json else page.text())
        self.code = 2 if contradictions else 0

    # What fit would refuse -------------------------------------------------------------------------------------------

    @contextmanager
    def _collecting(self) -> Iterator[None]:
        """All that is refused within; what fails because of it, or of what was refused before, is not said."""
        with collected_errors() as errors:
            try:
                yield
            except CONSEQUENCES as error:
                if isinstance(error, ConfigError):
                    errors.append(error)
                elif not errors and not self._found:
                    raise
        self._found += [text for text in dict.fromkeys(map(str, errors)) if text not in self._found]

    def _check(self, notes: list[str]) -> None:
        """Everything that `fit` checks before it loads; what this machine lacks is a note, since another may run it."""
        module, data = self.model, self.datamodule
        alone: tuple[Callable[[], None], ...] = (
            lambda: preflight.check_optimizer(module),
            lambda: module.verdicts.check_limit(module.verifier.limit_seconds()),
            lambda: notes.extend(module.plan.cut.layout.check(module.backbone.attention_kernel(), module.plan.cut.budget)),
        )
        for check in alone:
            with self._collecting():
                check()
        for what, look in (
            ("model", module.backbone.check), ("data", data.source.check), ("sampler", module.sampler.check),
            ("verifier", module.verifier.check),
        ):  # fmt: skip
            try:
                look()
            except ConfigError as error:
                notes.append(f"on this machine the {what} could not be checked or is not there: {error}")

    def _say_found(self) -> None:
        text = listed(self._found) + "\nSizes and memory are planned once these are mended."
        if self.settings.json:
            text = json.dumps({"contradictions": self._found}, indent=1)
        sys.stdout.write(text + "\n")
        self.code = 2

    # What is known beforehand ----------------------------------------------------------------------------------------

    def _machine(self, capacity: float | None) -> Machine:
        trainer, settings = self._get(self.config_init, "trainer"), self.settings
        gpu = trainer["accelerator"] != "cpu" and (
            settings.device is not None or trainer["accelerator"] in ("gpu", "cuda") or torch.cuda.is_available()
        )
        ranks = settings.devices or _count(trainer["devices"]) * int(trainer["num_nodes"] or 1)
        strategy = trainer["strategy"]
        if strategy == FSDP2Strategy.strategy_name or (strategy == AUTO and ranks > 1):
            strategy = FSDP2Strategy()
        memory = None if capacity is None else int(capacity * 2**30)
        if not isinstance(strategy, FSDP2Strategy):
            return Machine(ranks=ranks, gpu=gpu, memory=memory)
        compute, reduce = DTYPES[strategy.compute_dtype], DTYPES[strategy.reduce_dtype]
        return Machine(
            ranks=ranks, sharded=True, compute_bytes=0 if compute is None else compute.itemsize,
            reduce_bytes=4 if reduce is None else reduce.itemsize, reshard=strategy.reshard_after_forward,
            unsharded_gradients=strategy.accumulate == "unsharded", offload=strategy.cpu_offload, gpu=gpu, memory=memory,
        )  # fmt: skip

    def _lengths(self, notes: list[str]) -> Lengths:
        """Of prompts from the data where they can be read here, else `max_prompt_tokens`; of completions as given."""
        most = int(self.model.plan.sampling.max_new_tokens)
        mean = min(most, self.settings.length or most)
        try:
            found = self._prompt_lengths()
        except (ConfigError, OSError) as error:
            limit = int(self.datamodule.max_prompt_tokens)
            notes.append(f"prompts count as data.max_prompt_tokens={limit}, their data cannot be read here: {error}")
            found = [limit]
        except RunError as error:  # they can be read, and are not what the config says
            self._found.append(str(error))
            found = [int(self.datamodule.max_prompt_tokens)]
        if self.settings.length is None:
            notes.append(f"every completion counts as max_new_tokens={most} long: --length says how long they are in the mean")
        return Lengths(
            prompt_mean=round(statistics.mean(found)), prompt_most=max(found), completion_mean=mean, completion_most=most
        )

    def _prompt_lengths(self) -> list[int]:
        """Tokens of the first training prompts; too few problems and too long prompts are contradictions.

        What filters leave out is not known: with them a prompt counts as at most `max_prompt_tokens`. Raises `ConfigError` or
        `OSError` where data or tokenizer are not on this machine.
        """
        data = self.datamodule
        data.source.check()
        tokenizer, limit = self.model.backbone.tokenizer(), data.max_prompt_tokens
        problems = data.source.problems("train")
        require(len(problems) > 0, "data", wanted="at least 1 problem", got=0, remedy="Check the source's files.")
        prompts = make_prompts(list(islice(problems, SAMPLED)), tokenizer, data.templates, sys.maxsize)
        with self._collecting():
            require_prompts(len(problems), self.model.plan.cut.num_groups)
        some_left_out = bool(data.filters) or data.unusable_references == "skip"
        with self._collecting():
            refuse_long([] if some_left_out else prompts, limit)
        return [min(len(prompt.token_ids), limit) for prompt in prompts]


def _model_rows(planned: Planned) -> list[tuple[str, str]]:
    weights, shape = planned.weights, planned.shape
    trained = "all" if weights.trained_count == weights.count else f"{weights.trained_count:,}"
    cost = planned.optimizer
    return [
        ("architecture", planned.model_type),
        ("parameters", f"{weights.count:,} ({weights.count / 1e9:.2f} B), {planned.parameter_dtype}".replace("torch.", "")),
        ("trained", trained),
        ("layers, width, vocabulary", f"{len(shape.windows):,}, {shape.hidden:,}, {shape.vocabulary:,}"),
        ("optimiser", "unknown" if cost is None else f"{cost.name}, {cost.state:g} bytes of state per trained element"),
        ("devices", f"{planned.machine.ranks}, " + ("sharded (fsdp2)" if planned.machine.sharded else "each with a whole model")
         + f", computing in {8 * planned.machine.compute_bytes} bits"),
    ]  # fmt: skip


def _speed(peak: float | None, mfu: float, ranks: int) -> tuple[float | None, str]:
    """FLOPs per second of a device, and what to say of them."""
    if peak is None:
        return None, "FLOPs only: give --device or --flops for seconds"
    return peak * mfu, f"at {mfu:g} of {peak / 1e12:,.4g} TFLOP/s on {ranks} device{'s' * (ranks > 1)}"


def _count(devices: Any) -> int:
    """Lightning's `devices`: a number, a list, or "auto", which is what this machine has."""
    if isinstance(devices, list | tuple):
        return len(devices)
    text = str(devices)
    if text.lstrip("-").isdigit() and int(text) > 0:
        return int(text)
    return len(text.split(",")) if "," in text else max(1, torch.cuda.device_count())
