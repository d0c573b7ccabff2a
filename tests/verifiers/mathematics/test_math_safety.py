"""Model text is never evaluated in a trusted process: by payloads, by what the libraries do, and by reading the source."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from delta_lightning import verifiers
from delta_lightning.types import Status
from delta_lightning.verifiers.extraction.anywhere import Anywhere
from delta_lightning.verifiers.extraction.paper_box import PaperBox
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.mathematics.paper_grader import PaperGrader
from support.verdicts import completion_of, prompt_with

# Each would create the file MARKER if it were evaluated by Python, by `sympify` or by `parse_expr`.
PAYLOADS = [
    "__import__('os').system('touch MARKER')",
    "open('MARKER','w').write('\\pi 1')",
    "[open('MARKER','w')]",
    "(open('MARKER','w'),2)",
    "eval(\"open('MARKER','w')\")",
    "\\text{__import__('os').system('touch MARKER')}",
    "\\mathrm{open('MARKER','w')}",
    "exec(\"import os; os.system('touch MARKER')\")",
    "\\operatorname{open}('MARKER','w')",
    "x = open('MARKER', 'w')",
    "x_{open('MARKER','w')}",
    "\\pi + open('MARKER','w').write('1')",
    "lambda: open('MARKER','w')",
    "\\frac{open('MARKER','w')}{2}",
    "\\sqrt[open('MARKER','w')]{2}",
    "\\sqrt{open('MARKER','w')}",
    "1/open('MARKER','w').fileno()",
    "(1 for _ in [open('MARKER','w')])",
    "getattr(__builtins__,'open')('MARKER','w')",
    "().__class__.__base__.__subclasses__()[0]",
    "1*(2)*(open('MARKER','w'))",
    "\\{1,2\\} \\cup open('MARKER','w')",
    "f(open('MARKER','w'))",
    "\\begin{pmatrix}open('MARKER','w')\\end{pmatrix}",
    "\\int_{0}^{open('MARKER','w')} x dx",
    "Symbol('x').__class__.__init__.__globals__['__builtins__']['open']('MARKER','w')",
    "$__import__('pathlib').Path('MARKER').touch()$",
]
SETTINGS = [
    MathVerifier(),
    MathVerifier(extraction=Anywhere(kinds=("latex", "expression", "choice"))),
    MathVerifier(extraction=PaperBox(), comparison=PaperGrader()),
]
_EVALUATORS = {
    "eval", "exec", "compile", "__import__", "sympify", "parse_expr", "S", "literal_eval", "lambdify", "parse_latex", "Expr",
    "ExprExtractionConfig", "loads", "system", "popen",
}  # fmt: skip
_ALLOWED = {
    ("extraction/anywhere.py", "ExprExtractionConfig"),  # its regular expressions, and nothing else of it
    ("mathematics/symbolic.py", "Expr"), ("mathematics/samples.py", "Expr"),  # a class, for isinstance
    ("code/formats/test_format.py", "compile"),  # the data set's tests, to refuse those that do not compile; not run
    ("pool/worker.py", "loads"),  # the verifier, pickled by the trainer
}  # fmt: skip


@pytest.mark.parametrize("part", SETTINGS, ids=["default", "anywhere", "paper"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_payloads_do_nothing(part: MathVerifier, payload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sympy.parsing.sympy_parser as evaluator

    stringify = evaluator.stringify_expr

    def watched(evaluated: str, *args: Any) -> Any:  # the step before `eval`; sympy also reads names of its own there
        reached.append(evaluated)
        return stringify(evaluated, *args)

    reached: list[str] = []
    monkeypatch.setattr(evaluator, "stringify_expr", watched)
    marker = tmp_path / "marker"
    text = payload.replace("MARKER", str(marker))
    for gold in ("42", "\\pi", "x^2+1", "\\{1,2\\}", "(1,2)"):
        for completion in (f"\\boxed{{{text}}}", f"the answer is ${text}$", text):
            verdict = part.score(prompt_with(gold), completion_of(completion))
            assert verdict.status is not Status.CORRECT
            assert verdict.status is not Status.ERROR, verdict.reason
    assert part.refuse_reference({"answer": text}) is None or not marker.exists()
    assert [evaluated for evaluated in reached if "open" in evaluated or (len(evaluated) > 2 and evaluated in text)] == []
    assert not marker.exists()


def test_the_payloads_are_live(tmp_path: Path) -> None:
    """Else the test above would prove nothing: sympy's own evaluator runs them."""
    from sympy.parsing.sympy_parser import parse_expr

    marker = tmp_path / "marker"
    parse_expr(PAYLOADS[2].replace("MARKER", str(marker)))
    assert marker.exists()


def test_no_verifier_calls_an_evaluator_outside_a_cell() -> None:
    """Every name that is called or imported in them, by reading their source."""
    folder = Path(verifiers.__file__).parent
    files = [path for path in folder.rglob("*.py") if path.parent.name != "cells"]  # what runs in a sandbox's cell
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if ast.unparse(node.func) not in ("re.compile", "json.loads"):
                    found.add((path.relative_to(folder).as_posix(), called))
            elif isinstance(node, ast.ImportFrom | ast.Import):
                found.update((path.relative_to(folder).as_posix(), alias.name) for alias in node.names)
    assert {"mathematics/symbolic.py", "code/code_verifier.py", "numeric.py"} <= {file for file, _ in found}
    assert {(file, name) for file, name in found if name in _EVALUATORS} <= _ALLOWED


@pytest.mark.parametrize(
    "text",
    ["\\text{open(1)}", "\\text{S.One}", "\\operatorname{foo}(x)", "\\mathrm{lambda}", "x_{import}", "f(x)", "\\text{2+2}"],
)
def test_the_grammar_makes_names_of_text_and_nothing_else(text: str) -> None:
    """`\\text{2+2}` is the symbol of that name, not 4; what the grammar does not know is refused."""
    from delta_lightning.verifiers.mathematics.latex import parsed

    found = parsed(text)
    assert found is None or found.free_symbols or found.is_Symbol


@pytest.mark.parametrize(
    "text", ["x^2+1", "2.5x", "\\frac{1}{3}", "1,234", "1.5E3", "50\\%", "\\begin{pmatrix}1&2\\end{pmatrix}", "\\gcd(4,6)"]
)
def test_not_even_digits_meet_an_evaluator(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library makes numbers by `sympy.Number(text)`, which is `eval`; ours are made directly."""
    import sympy.parsing.sympy_parser

    from delta_lightning.verifiers.mathematics.latex import parsed

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("text reached an evaluator")

    monkeypatch.setattr(sympy.parsing.sympy_parser, "parse_expr", refuse)
    assert parsed(text) is not None
