"""The tests, in a cell of their own: they call the program through its proxy and never share a process with it.

The verdict goes to the verifier as text on the second descriptor: one character per finished unit, "1" passed or "0" not, then
a line with the first failure. The verifier can so count what had passed when time ran out. An "e" instead says that the tests
themselves are broken.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import sys
from importlib import import_module
from types import CodeType, ModuleType
from typing import Any

try:
    from remote import Link, ProgramFault, Remote  # type: ignore[import-not-found]
except ImportError:
    from delta_lightning.verifiers.code.cells.remote import Link, ProgramFault, Remote

_MAX_REASON = 300  # characters
_KEPT_BACK = 64 << 20  # bytes
_MODULES = (
    "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json",
    "math", "operator", "random", "re", "statistics", "string", "sys",
)  # fmt: skip


class Broken(BaseException):
    """The tests cannot be used, whatever the program does: the data set's failure, and not the program's."""


def serve(descriptors: list[int], argument: bytes) -> None:
    """Judge the program behind the first descriptor; the verdict goes to the second.

    Args:
        argument: JSON: `helpers` (texts that run before the program's names are there, and hide its own names), `setup` (texts
            that run with them), `units` (texts, each passes or not), `target` (the name under test, which hides a helper's, or
            null), `alias` (a second name for it, or null).
    """
    _keep_memory_back()
    link, verdict = Link(descriptors[0]), descriptors[1]
    tests = json.loads(argument)
    broken = _tested(link, verdict, **tests)
    os.write(verdict, b"\n" + json.dumps(broken[:_MAX_REASON]).encode("ascii") + b"\n")


def _keep_memory_back() -> None:
    """Have Python raise `MemoryError` before a control group kills: a killed judge would be our failure, not the program's.

    The address space has the size of the group, but the group also counts page tables and pages that the fork had shared.
    """
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (limit - _KEPT_BACK, hard))


def _tested(
    link: Link, verdict: int, *, helpers: list[str], setup: list[str], units: list[str], target: str | None, alias: str | None
) -> str:
    """Write a character per unit; the first failure, or an empty text."""
    module = ModuleType("tests")
    sys.modules["tests"] = module
    space = vars(module)
    try:
        for text in helpers:
            exec(compile(text, "helpers", "exec", dont_inherit=True), space)
    except BaseException as error:  # noqa: BLE001 -- reported to the verifier
        os.write(verdict, b"e")
        return _described(error)
    try:
        failed = link.loaded()
    except (Exception, ProgramFault) as error:  # noqa: BLE001 -- reported to the verifier
        failed = _described(error)
    if failed is not None:
        os.write(verdict, b"0" * len(units))
        return f"the program does not load: {failed}"
    try:
        setup_code = [compile(text, "setup", "exec", dont_inherit=True) for text in setup]
        unit_code = [compile(text, "test", "exec", dont_inherit=True) for text in units]
        space.update(_wanted(link, space, [*setup_code, *unit_code], target))
        if alias is not None and target in space:
            space[alias] = space[target]
        for code in setup_code:
            exec(code, space)
    except (Exception, ProgramFault, SystemExit) as error:  # noqa: BLE001 -- reported to the verifier
        os.write(verdict, b"0" * len(units))
        return f"the tests' set-up: {_described(error)}"
    first = ""
    for text, code in zip(units, unit_code, strict=True):
        try:
            problem = _run(code, space)
        except Broken as error:
            os.write(verdict, b"e")
            return _described(error)
        os.write(verdict, b"0" if problem else b"1")
        first = first or (f"{problem} in {text.strip()}" if problem else "")
    return first


def _run(code: CodeType, space: dict[str, Any]) -> str:
    """Why the unit fails, or an empty text."""
    try:
        exec(code, space)
    except (Exception, ProgramFault, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 -- a failed unit
        return _described(error)
    return ""


def _described(error: BaseException) -> str:
    """Its text may hold a program's object, and making it then asks the program, which may have ended."""
    try:
        return f"{type(error).__name__}: {error}"[:_MAX_REASON]
    except BaseException:  # noqa: BLE001 -- a text that cannot be made
        return type(error).__name__


def _wanted(link: Link, space: dict[str, Any], codes: list[CodeType], target: str | None) -> dict[str, Any]:
    """The program's values of the names that the tests use.

    A name that a helper defined is the helper's, and the name of a built-in or of a module is the built-in's or the module's:
    a program that redefines `sorted` or `math` changes nothing. The exceptions are the target, and such a name where the
    program has none of the other names in the tests, as in `assert sum(10, 15) == 6` for a function that the problem calls
    `sum`. What it did not show when it was first asked it cannot show then.
    """
    used: set[str] = set().union(*(_names(code) for code in codes)) - space.keys()
    own = used - vars(builtins).keys() - set(_MODULES)
    found = link.names(sorted(own if target is None else {*own, target}))
    if target is None and not found:
        found = link.names(sorted(used - own))
    # A program's imports are no names of its own, and tests do lean on them.
    modules = {name: import_module(name) for name in _MODULES if name in used and name not in found}
    return {**modules, **found}


def _names(code: CodeType) -> set[str]:
    """Global names and attributes that a code object and those inside it use."""
    inner = (_names(constant) for constant in code.co_consts if type(constant) is CodeType)
    return set(code.co_names).union(*inner)


def is_remote(value: Any) -> bool:
    """Whether it lives in the program's cell."""
    return type(value) is Remote
