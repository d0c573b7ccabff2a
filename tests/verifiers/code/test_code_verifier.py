"""The part itself: statuses, measures, checks; and in a pool."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.sandbox import Limits
from delta_lightning.types import Status
from delta_lightning.verifiers.code import CodeVerifier, Continuation, HumanEval, Mbpp, StdinStdout
from delta_lightning.verifiers.code.sandboxes import forget
from delta_lightning.verifiers.pool import VerifierPool
from support.programs import asserts, completion_of, graded, prompt_of

ADD = "def add(a, b):\n    return a + b\n"
REFERENCE = {"test_list": ["assert add(1, 2) == 3"]}


def test_statuses() -> None:
    verifier = CodeVerifier()
    right = verifier.score(prompt_of(REFERENCE), completion_of(f"```python\n{ADD}```"))
    assert (right.status, right.reward) == (Status.CORRECT, 1.0)
    wrong = verifier.score(prompt_of(REFERENCE), completion_of("```python\ndef add(a, b): return 3 - a\n```"))
    assert (wrong.status, wrong.reward) == (Status.INCORRECT, 0.0)
    none = verifier.score(prompt_of(REFERENCE), completion_of(ADD))
    assert (none.status, none.reward, none.measures["passed_share"]) == (Status.NO_ANSWER, 0.0, 0.0)
    broken = verifier.score(prompt_of({"test_list": ["assert ("]}), completion_of(f"```python\n{ADD}```"))
    assert broken.status is Status.ERROR and "does not compile" in broken.reason


def test_a_base_model_goes_on_where_the_prompt_stops() -> None:
    prompt = 'def add(a, b):\n    """Adds."""\n'
    reference = {"prompt": prompt, "entry_point": "add", "test": "def check(f):\n    assert f(2, 2) == 4"}
    verifier = CodeVerifier(tests=HumanEval(), programs=Continuation())
    completion = completion_of("    return a + b\n\ndef main():\n    syntax error")
    assert verifier.score(prompt_of(reference, prompt), completion).status is Status.CORRECT


def test_a_sandbox_that_fails_is_our_error_and_the_next_verdict_has_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from delta_lightning.errors import RunError
    from delta_lightning.sandbox import Sandbox

    def fail(*_: object, **__: object) -> None:
        raise RunError("the zygote is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "start", fail)
        verdict = asserts(ADD, "assert add(1, 2) == 3")
    assert verdict.status is Status.ERROR and "the zygote is gone" in verdict.reason
    assert asserts(ADD, "assert add(1, 2) == 3").status is Status.CORRECT


def test_sets_of_text_have_the_same_order_in_every_sandbox() -> None:
    shown = set()
    for _ in range(3):
        forget("auto", False, ())
        shown.add(asserts("def f(): return list({'a', 'b', 'c', 'd', 'e'})", "assert f() == 0, f()").reason)
    assert len(shown) == 1


def test_its_laws_as_a_part() -> None:
    verifier = CodeVerifier(tests=StdinStdout(tolerance=1e-6), seconds=3, packages=("/tmp",))
    assert pickle.loads(pickle.dumps(verifier)) == verifier
    assert verifier.limit_seconds() == 4.0
    assert verifier.reference_fields() == {"inputs", "outputs"}
    assert CodeVerifier().reference_fields() == {"test_list"}
    assert CodeVerifier().refuse_reference(REFERENCE) is None
    assert "does not compile" in str(CodeVerifier().refuse_reference({"test_list": ["assert ("]}))


def test_fields_out_of_range() -> None:
    with pytest.raises(ConfigError, match="seconds"):
        CodeVerifier(seconds=0)
    with pytest.raises(ConfigError, match="reward"):
        CodeVerifier(reward="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"limits\.cpu_seconds"):
        CodeVerifier(seconds=20)
    assert CodeVerifier(seconds=20, limits=Limits(cpu_seconds=30)).limit_seconds() == 21.0


def test_check_says_what_is_guaranteed_and_refuses_what_cannot_work() -> None:
    assert any("sandbox" in line.lower() for line in CodeVerifier().check())
    with pytest.raises(ConfigError, match="packages"):
        CodeVerifier(packages=("/no/such/folder",)).check()
    with pytest.raises(ConfigError, match="rung"):
        CodeVerifier(rung="cardboard").check()


def test_packages_can_be_imported_by_programs_and_tests(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)  # cells have another uid
    (tmp_path / "little_package.py").write_text("VALUE = 41\n")
    program = "import little_package\ndef f(): return little_package.VALUE + 1"
    test = "from little_package import VALUE\nassert f() == VALUE + 1"
    packages = (str(tmp_path),)
    try:
        assert asserts(program, test, packages=packages).status is Status.CORRECT
    finally:
        forget("auto", False, packages)
    assert asserts(program, test).status is Status.INCORRECT


def test_suspicious_programs_are_counted_and_not_punished() -> None:
    verdict = asserts(f"import sys\nsys._getframe(0)\n{ADD}", "assert add(1, 2) == 3")
    assert (verdict.status, verdict.reward, verdict.measures["suspicious"]) == (Status.CORRECT, 1.0, 1.0)


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import delta_lightning.verifiers.code, sys; print(sorted({'torch', 'numpy', 'lightning'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_in_a_pool_every_completion_has_its_verdict() -> None:
    answers = {n: f"def add(a, b): return a + b + {n % 2}" for n in range(40)}
    verifier = CodeVerifier(seconds=5)
    with VerifierPool(verifier, workers=2, timeout=8) as pool:
        for n, program in answers.items():
            pool.submit(n, prompt_of(REFERENCE), completion_of(f"```python\n{program}\n```"))
        verdicts = dict(pool.drain())
    assert {n: verdict.status for n, verdict in verdicts.items()} == {
        n: Status.INCORRECT if n % 2 else Status.CORRECT for n in answers
    }


def test_stdin_programs_and_calls_share_a_sandbox() -> None:
    for _ in range(3):
        assert asserts(ADD, "assert add(1, 2) == 3").status is Status.CORRECT
        reference = {"inputs": ["1"], "outputs": ["1"]}
        assert graded("print(input())", reference, StdinStdout()).status is Status.CORRECT
    assert Mbpp().fields() == {"test_list"}
