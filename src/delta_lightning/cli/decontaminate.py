"""`delta-lightning decontaminate`: what a config's `Decontaminate` filter finds, without a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from delta_lightning.cli.command import prepare, run_command, say, say_dropped
from delta_lightning.cli.config_files import ShortErrors
from delta_lightning.cli.config_parts import own_parts
from delta_lightning.cli.quiet import quiet
from delta_lightning.data import Decontaminate
from delta_lightning.data.maker import count_tokens, refuse_comparing
from delta_lightning.data.overlap import Match
from delta_lightning.data.problem_filters.decontaminate import line
from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import FilterContext
from delta_lightning.models.backbone import Backbone
from delta_lightning.trainer.callbacks.atomic import whole
from delta_lightning.trainer.datamodule import PromptData
from delta_lightning.trainer.progress import Progress
from delta_lightning.types import Problem

DESCRIPTION = """\
Compares the training problems of a run's config with the evaluation sets that its Decontaminate filter names, as the run will,
and prints counts and the worst pairs. No model is loaded; its tokenizer is, where a filter before it counts tokens. Exit code
0: compared, whatever was found; 2: the config, a file or a data set cannot be used."""


def run(args: Sequence[str]) -> int:
    """Run the command with these arguments; every error made on purpose ends in one message and an exit code."""
    return run_command(lambda: _parse_and_compare(args), interrupted="interrupted; no report was written")


def _parse_and_compare(args: Sequence[str]) -> int:
    quiet()
    prepare(args, ("data", "models"))
    parser = _parser()
    settings = parser.parse_args(own_parts(args, ("backbone",), ("data",)))
    say_dropped()
    report = None if settings.report is None else Path(settings.report)
    require(report is None or not report.exists(), "--report", wanted="a file that does not exist yet", got=str(report),
            remedy="Nothing is overwritten: name another, or remove it.")  # fmt: skip
    built = parser.instantiate_classes(settings)
    return _compare(built.data, built.backbone, report)


def _parser() -> ArgumentParser:
    ShortErrors.roots = {"data": PromptData, "backbone": Backbone | None}
    parser = ShortErrors(prog="delta-lightning decontaminate", description=DESCRIPTION)
    parser.add_argument("--config", action="config", help="Config of a run, later ones win; data and model.backbone are read.")
    parser.add_argument(
        "--report", type=str, default=None, help="Writes every pair here, as JSON Lines; nothing is overwritten."
    )
    parser.add_argument("--backbone", type=Backbone | None, default=None, help="The model, for its tokenizer.")
    parser.add_class_arguments(PromptData, "data")
    return parser


def _compare(data: PromptData, backbone: Backbone | None, report: Path | None) -> int:
    chosen = [(place, each) for place, each in enumerate(data.filters) if isinstance(each, Decontaminate)]
    require(bool(chosen), "data.filters", wanted="a Decontaminate filter, which names the evaluation sets",
            got=[type(each).__name__ for each in data.filters], remedy="Add one to the config.")  # fmt: skip
    data.source.check()
    for each in data.filters:
        each.check()
    if data.source.on_demand():
        refuse_comparing(data.filters)
    progress, lines = Progress.for_rank(0), list[str]()
    for place, judge in chosen:
        begun, index = time.monotonic(), judge.index()
        count, found = 0, list[tuple[Problem, Match]]()
        for problem in reaching(data, place, backbone, progress):
            count += 1
            match = judge.match(index, problem)
            if match is not None:
                found.append((problem, match))
        progress.line(f"compared {count:,} problems in {time.monotonic() - begun:.1f} s")
        more = "are not shown (--report=FILE)" if report is None else f"stand in {report}"
        sys.stdout.write(judge.page(found, count, index, more))
        lines += (line(problem, match) for problem, match in found)
    if report is not None:
        with whole(report, "the report") as file:
            file.write_text("".join(lines), encoding="utf-8")
        say(f"report in {report}")
    return 0


def reaching(data: PromptData, place: int, backbone: Backbone | None, progress: Progress) -> Iterator[Problem]:
    """The training problems that the filters before filter number `place` leave, in order.

    Where they are read on demand, each of them is, all through, though none is kept. Raises `ConfigError`.
    """
    earlier = [each for each in data.filters[:place] if "train" in each.splits()]

    @cache
    def tokenizer() -> Any:
        if backbone is None:
            raise ConfigError("model.backbone", wanted="a model, by whose tokenizer a filter counts", got="none",
                              remedy="Give the config of the whole run.")  # fmt: skip
        return backbone.tokenizer()

    def lengths(problems: Sequence[Problem]) -> list[int]:
        return count_tokens(problems, tokenizer(), data.templates, progress)

    together = not data.source.on_demand()
    opened = [each.open(FilterContext(count_tokens=lengths, tick=progress, whole=together)) for each in earlier]
    problems = data.source.problems("train")
    if together:
        for keep in opened:
            problems = [problem for problem, yes in zip(problems, keep(problems), strict=True) if yes]
        opened = []
    for number in range(len(problems)):
        progress("comparing with evaluation sets", number + 1, len(problems))
        try:
            problem = problems[number]
        except ConfigError:
            if data.unusable_references == "skip":
                continue
            raise
        if all(keep([problem])[0] for keep in opened):
            yield problem
