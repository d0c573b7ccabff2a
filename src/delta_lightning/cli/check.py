"""`delta-lightning check package.MyPart`: a part, a stranger's too, held to the laws of its seam."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jsonargparse

from delta_lightning.cli.app import PARTS
from delta_lightning.cli.failures import debugging, delta_error, show
from delta_lightning.cli.plugins import load_plugins
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import Verifier
from delta_lightning.testing.laws import CHECKS, SEAMS, check, check_part, concrete_parts, seam_of
from delta_lightning.types import Example

_QUOTE = """For example --reference='{"answer": "42"}'."""
USAGE = """\
delta-lightning check CLASS [--FIELD=VALUE ...] [--reference=JSON] [--source=NAME]

Holds a part to the laws of its seam: detached, finite, the same however the rows are cut, padded, ordered or spread over ranks,
fine on degenerate batches. CLASS is an import path such as my_package.MyAssigner, or a short name such as Delta. Fields that
are left out keep their defaults. A verifier is tried with what its method examples() gives, or with --reference='{"answer":
"42"}', as the data would have it, and --source, the data set of that problem.
Exit code 0: it obeys; 1: a law is broken; 2: there is no such part, or it cannot work on this machine.
"""


def run(args: Sequence[str]) -> int:
    """Check the class that `args` name, with the fields that they give."""
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    try:
        cls = _named(args[0])
        options, examples = _examples(cls, args[1:])
        part = _built(cls, options)
        _require_ready(part)
    except ConfigError as error:
        if debugging():
            raise
        show(str(error))
        return 2
    seam = seam_of(cls)
    sys.stdout.write(f"{cls.__module__}.{cls.__qualname__} is a {seam.__name__}\n")
    steps: list[tuple[str, Callable[[], None]]] = [("is a frozen, documented dataclass", lambda: check_part(cls, part))]
    if seam in CHECKS:
        steps.append((f"obeys the laws of {seam.__name__}", lambda: check(part, examples)))
    else:
        sys.stdout.write(f"  laws of {seam.__name__} need its engine or data: only the form of the class is checked\n")
    return max(_report(what, step) for what, step in steps)


def _require_ready(part: Any) -> None:
    """A verifier without its library, sandbox or service breaks no law. Raises `ConfigError`."""
    if not isinstance(part, Verifier):
        return
    try:
        part.check()
    except ConfigError:
        raise
    except Exception:  # noqa: BLE001 -- the laws meet it again and report it
        return


def _report(what: str, step: Callable[[], None]) -> int:
    """Run one step and say in a line how it went."""
    sys.stdout.write(f"  {what} ...")
    sys.stdout.flush()
    started = time.perf_counter()
    try:
        step()
    except Exception as error:  # noqa: BLE001 -- foreign code; every failure is the finding
        reason = " ".join(str(error).split()) or "no reason given"
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        sys.stdout.write(f" BROKEN: {kind}{reason}{_where(error)}\n")
        if debugging():
            traceback.print_exception(error)
        return 1
    sys.stdout.write(f" yes ({time.perf_counter() - started:.1f} s)\n")
    return 0


def _where(error: BaseException) -> str:
    """The innermost line that is not of the laws themselves."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if "delta_lightning/testing" not in frame.filename]
    lines = [frame for frame in lines if "delta_lightning/cli" not in frame.filename]
    return f" (at {lines[-1].filename}:{lines[-1].lineno})" if lines else ""


def _named(name: str) -> type:
    """The class of that import path or short name. Raises `ConfigError`."""
    for package in PARTS:
        importlib.import_module(f"delta_lightning.{package}")
    load_plugins(lambda line: None)
    if "." not in name:
        known = [cls for seam in SEAMS for cls in concrete_parts(seam) if cls.__name__ == name]
        if len(known) == 1:
            return known[0]
        if known:
            paths = " and ".join(f"{cls.__module__}.{name}" for cls in known)
            raise ConfigError(
                "check", wanted="an import path, since several parts have that name", got=name, remedy=f"Use {paths}."
            )
        raise ConfigError("check", wanted="an import path, or the short name of an installed part", got=name,
                          remedy="Write package.module.Class; delta-lightning fit --help lists short names.")  # fmt: skip
    module, _, attribute = name.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        said = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise ConfigError("check", wanted=f"a class {attribute} in an importable module {module}", got=said,
                          remedy="Run where the package can be imported, or install it.") from error  # fmt: skip
    if not isinstance(found, type):
        raise ConfigError("check", wanted="a class", got=f"{name}, of type {type(found).__name__}",
                          remedy="Name the class, and give fields as --field=value.")  # fmt: skip
    try:
        seam_of(found)
    except TypeError as error:
        raise ConfigError("check", wanted="a subclass of one seam of delta_lightning.interfaces", got=str(error),
                          remedy="Subclass CreditAssigner, PolicyLoss, or another seam.") from error  # fmt: skip
    return found


def _examples(cls: type, options: Sequence[str]) -> tuple[list[str], tuple[Example, ...]]:
    """The options that are fields, and what a verifier is to be tried with. Raises `ConfigError`."""
    given = dict(option.split("=", 1) for option in options if option.startswith(("--reference=", "--source=")))
    fields = {f"--{item.name}" for item in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    mine = given.keys() - fields
    rest = [option for option in options if option.partition("=")[0] not in mine]
    if not issubclass(cls, Verifier) or "--reference" not in mine:
        return rest if issubclass(cls, Verifier) else list(options), ()
    try:
        reference = json.loads(given["--reference"])
    except ValueError as error:
        raise ConfigError("check --reference", wanted="JSON", got=str(error), remedy=_QUOTE) from error
    if not isinstance(reference, dict):
        raise ConfigError("check --reference", wanted="a JSON object", got=given["--reference"], remedy=_QUOTE)
    source = given["--source"] if "--source" in mine else "example"
    return rest, (Example(reference=reference, text="42", status=None, source=source),)


def _built(cls: type, options: list[str]) -> Any:
    """An instance with the fields that `options` give as `--field=value`. Raises `ConfigError`."""
    if not dataclasses.is_dataclass(cls):
        raise ConfigError("check", wanted="a dataclass, frozen and keyword-only", got=cls.__name__,
                          remedy="Decorate it with @dataclass(frozen=True, kw_only=True).")  # fmt: skip
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "part")
    try:
        given = parser.parse_args([option.replace("--", "--part.", 1) for option in options])
        return parser.instantiate_classes(given).part
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        known = delta_error(error)
        if known is not None:
            raise known from error
        raise ConfigError("check", wanted=f"fields of {cls.__name__}", got=" ".join(str(error).split()),
                          remedy="Give them as --field=value; fields without defaults must be given.") from error  # fmt: skip
