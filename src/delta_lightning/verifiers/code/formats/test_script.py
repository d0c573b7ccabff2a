"""A test file: statements with asserts among them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_lightning.verifiers.code.formats.test_format import CallTests, TestFormat, Unusable, compiles, text_of


@dataclass(frozen=True, kw_only=True)
class TestScript(TestFormat):
    """One text. A unit ends at each top-level assert; functions `test_...` without arguments are units of their own.

    The statements run in their order in one namespace; what stands behind the last assert (`check(f)`) is a unit, unless it
    only defines things. EvalPlus' data sets on the Hub have this shape (their `test` wants numpy: see `packages`), and so have
    references of the `code_eval` metric.

    Args:
        field: key of the reference that holds the text.
    """

    field: str = "test"

    def fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset({self.field})

    def example(self) -> Mapping[str, Any]:
        """See the seam."""
        return {self.field: "assert add(1, 2) == 3\nassert add(2, 2) == 4\n"}

    def read(self, reference: Mapping[str, Any]) -> CallTests:
        """See the seam."""
        text = compiles(text_of(reference, self.field), repr(self.field))
        units = split(ast.parse(text).body)
        if not units:
            raise Unusable(f"{self.field!r} asserts nothing and calls nothing")
        return CallTests(units=units)


def split(statements: list[ast.stmt]) -> tuple[str, ...]:
    """The units, each with what stands between it and the one before."""
    units: list[str] = []
    pending: list[ast.stmt] = []
    for statement in statements:
        pending.append(statement)
        if isinstance(statement, ast.Assert):
            units.append(_text(pending))
            pending = []
    tests = [node.name for node in statements if isinstance(node, ast.FunctionDef) and _is_test(node)]
    if pending and (tests or any(not isinstance(node, _DEFINITIONS) for node in pending)):
        units.append(_text([*pending, *(_call(name) for name in tests[:1])]))
        tests = tests[1:]
    return (*units, *(f"{name}()" for name in tests))


_DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)


def _is_test(node: ast.FunctionDef) -> bool:
    return node.name.startswith("test_") and not (node.args.args or node.args.kwonlyargs or node.args.posonlyargs)


def _call(name: str) -> ast.stmt:
    return ast.parse(f"{name}()").body[0]


def _text(statements: list[ast.stmt]) -> str:
    return ast.unparse(ast.Module(statements, []))
