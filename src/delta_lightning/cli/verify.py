"""`delta-lightning verify`: grades a file of answers, without a model and without torch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from delta_lightning.cli.answers import check_answers, read_answers
from delta_lightning.cli.command import prepare, run_command, say_dropped
from delta_lightning.cli.config_files import ShortErrors
from delta_lightning.cli.config_parts import own_parts
from delta_lightning.cli.failures import show
from delta_lightning.cli.graded import TAIL, Graded, report, share_of
from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.interfaces import Verifier
from delta_lightning.trainer.verdicts import FAILED, VerdictPolicy
from delta_lightning.verifiers.pool import VerifierPool

DESCRIPTION = """\
Grades a file of answers with the verifier of a run's config, or with one named here. Rows of the file (.jsonl or .parquet):
completion and reference (an object of what the verifier reads); perhaps id, source, prompt, finish_reason, token_ids, and
label (true or false: is the answer right?). Exit code 0: graded; 1: more verdicts failed than verdicts.max_error_share or
verdicts.max_unavailable_share allows; 2: it could not begin."""
_DEFAULT = "MathVerifier"  # what `fit` takes where the config names none
_OWN = ("verifier", "verdicts")  # settings that stand below `model` in a run's config
_EVERY = 10.0  # seconds between lines of progress where a line cannot be rewritten


def run(args: Sequence[str]) -> int:
    """Run the command with these arguments; every error made on purpose ends in one message and an exit code."""
    out = Path()

    def command() -> int:
        nonlocal out
        prepare(args, ("verifiers.parts",))
        settings = _parser().parse_args(own_parts(args, _OWN))
        say_dropped()
        out = Path(settings.out or ".")
        return _verify(_parser().instantiate_classes(settings))

    return run_command(command, folder=lambda: out.parent, interrupted="interrupted; no verdicts were written")


def _parser() -> ArgumentParser:
    ShortErrors.roots = {"verifier": Verifier | None, "verdicts": VerdictPolicy}
    parser = ShortErrors(prog="delta-lightning verify", description=DESCRIPTION)
    helps = {
        "data": "The file of answers.",
        "out": "Writes the verdicts here, as JSON Lines; nothing is overwritten.",
        "columns": "Field -> column, as in --columns.completion=response --columns.answer=gold; fields that are no columns of "
        "the format go into the reference.",
        "rows": "Grade only so many rows, the first ones.",
        "workers": "Worker processes, instead of verdicts.workers.",
        "timeout": "Seconds per verdict, instead of verdicts.timeout_seconds.",
        "examples": "Answers shown of each status, and of disagreements.",
    }
    parser.add_argument(
        "--config", action="config", help="Config of a run, later ones win; only model.verifier and model.verdicts are read."
    )
    for name, kind in (("data", str), ("out", str), ("rows", int), ("workers", int), ("timeout", float)):
        parser.add_argument(f"--{name}", type=kind, default=None, help=helps[name])
    parser.add_argument("--columns", type=dict[str, str], default={}, help=helps["columns"])
    parser.add_argument("--examples", type=int, default=2, help=helps["examples"])
    parser.add_subclass_arguments(Verifier, "verifier", required=False, help="The verifier, for example MathVerifier.")
    parser.add_class_arguments(VerdictPolicy, "verdicts")
    return parser


def _verify(settings: Any) -> int:
    """Check, grade, report."""
    for name, fine, wanted in (
        ("data", settings.data is not None, "a file of answers, as in --data=answers.jsonl"),
        ("rows", settings.rows is None or settings.rows >= 1, "at least 1"),
        ("examples", settings.examples >= 0, "at least 0"),
    ):
        require(fine, f"--{name}", wanted=wanted, got=settings[name], remedy="See delta-lightning verify --help.")
    verifier = settings.get("verifier") or _default(settings.config)
    policy = _policy(settings)
    policy.check_limit(verifier.limit_seconds())
    file, out = Path(settings.data).expanduser(), Path(settings.out).expanduser() if settings.out else None
    if out is not None:
        _require_new(out)
    columns: Mapping[str, str] = settings.columns
    next(read_answers(file, columns, 1), None)  # a missing file or misspelt column is said before a sandbox is tried
    said = [f"          {line}" for line in verifier.check()]  # before references: a missing library is said there
    count = check_answers(file, columns, verifier, settings.rows)
    what = f"{count} of {file}, {policy.workers} workers, limit {policy.timeout_seconds:g} s"
    _print(f"verifier  {_named(verifier)}", *said, f"answers   {what}", "")
    started = time.monotonic()
    graded = _grade(file, columns, verifier, policy, count)
    seconds = time.monotonic() - started
    if out is not None:
        _write(out, graded)
    _print(report(graded, examples=settings.examples))
    where = f"; verdicts in {out}" if out is not None else ""
    _print(f"{count} answers in {seconds:.2f} s with {policy.workers} workers, their start included{where}")
    return _judged(graded, policy)


def _judged(graded: Sequence[Graded], policy: VerdictPolicy) -> int:
    """1 where a run would stop because too many verdicts failed, else 0."""
    code = 0
    for status, setting in FAILED.items():
        share, bound = share_of(graded, status), getattr(policy, setting)
        if share > bound:
            show(f"{status.value}: {100 * share:.1f} % of the verdicts, more than verdicts.{setting}={bound:g} allows")
            code = 1
    return code


def _named(value: Any) -> str:
    """A part's class and the fields that are not as they come, through the parts within."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_named(each)}' for name, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_named, value))}]"
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    changed = []
    for item in dataclasses.fields(value):
        given = getattr(value, item.name)
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        if given != default:
            changed.append(f"{item.name}={_named(given)}")
    return f"{type(value).__name__}({', '.join(changed)})"


def _default(config: Any) -> Verifier:
    """Where a config names no verifier, that of `fit`. Raises `ConfigError` where there is no config either."""
    if not config:
        raise ConfigError(
            "--verifier", wanted="a verifier", got="none", remedy="Add --verifier=MathVerifier, or --config=run.yaml."
        )
    found: Verifier = _parser().instantiate_classes(_parser().parse_args([f"--verifier={_DEFAULT}"])).verifier
    return found


def _policy(settings: Any) -> VerdictPolicy:
    policy: VerdictPolicy = settings.verdicts
    if settings.workers is not None:
        policy = replace(policy, workers=settings.workers)
    return policy if settings.timeout is None else replace(policy, timeout_seconds=settings.timeout)


def _grade(file: Path, columns: Mapping[str, str], verifier: Verifier, policy: VerdictPolicy, count: int) -> list[Graded]:
    """Every row with its verdict, in the order of the file."""
    shown = _Progress(count)
    found: dict[int, Graded] = {}
    begun: dict[int, tuple[str, str, bool | None, str]] = {}
    with VerifierPool(verifier, workers=policy.workers, timeout=policy.timeout_seconds, pending_mib=256) as pool:
        for index, answer in enumerate(read_answers(file, columns, count)):
            pool.submit(index, answer.prompt, answer.completion, lambda done, _: shown(done))
            begun[index] = (answer.prompt.id, answer.prompt.source, answer.label, answer.completion.text[-TAIL:])
        for key, verdict, seconds in pool.drain_timed(lambda done, _: shown(done)):
            assert isinstance(key, int)
            identity, source, label, tail = begun.pop(key)
            found[key] = Graded(id=identity, source=source, label=label, tail=tail, verdict=verdict, seconds=seconds)
    shown.clear()
    if len(found) != count:
        raise RunError(f"{file} changed while it was graded: it had {count} rows and now has {len(found)}.")
    return [found[index] for index in range(count)]


class _Progress:
    """`graded 12/256` on stderr: rewritten in a terminal, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._live, self._last = total, sys.stderr.isatty(), time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last >= (0.1 if self._live else _EVERY):
            self._last = now
            sys.stderr.write(f"\rgraded {done}/{self._total}" if self._live else f"graded {done}/{self._total}\n")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _require_new(out: Path) -> None:
    require(
        not os.path.lexists(out), "--out", wanted="a file that does not exist yet", got=str(out), remedy="Name another one."
    )
    require(out.parent.is_dir(), "--out", wanted="a folder that exists", got=str(out.parent), remedy="Make it first.")


def _write(out: Path, graded: Sequence[Graded]) -> None:
    """All or nothing, and never over a file that has come up in the meantime."""
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(row.line()) + "\n" for row in graded)
            file.flush()
            os.fsync(file.fileno())
        try:
            out.open("x").close()  # takes the name, or finds it taken
        except FileExistsError:
            _require_new(out)
            raise
        os.replace(draft, out)
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def _print(*lines: str) -> None:
    try:
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough; the verdicts and the exit code still count
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
