"""Each format's own shapes, usable and not; what they run is tested with the data sets and the judges."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.errors import ConfigError
from delta_lightning.types import Status
from delta_lightning.verifiers.code import Apps, EvalPlus, HumanEval, LiveCodeBench, Mbpp, StdinStdout, TestFormat, TestScript
from delta_lightning.verifiers.code.formats.test_format import CallTests, InputTests, Unusable
from support.programs import graded

ADD = "def add(a, b):\n    return a + b\n"
FORMATS: list[TestFormat] = [
    Mbpp(),
    Mbpp(challenge=True),
    HumanEval(),
    EvalPlus(),
    TestScript(),
    StdinStdout(),
    Apps(),
    LiveCodeBench(),
]
ROW = {
    "prompt": '"""Add."""\n', "entry_point": "add", "canonical_solution": ADD, "atol": 0, "base_input": [[1, 2]],
    "plus_input": [[3, 4]], "assertion": "assert add(1, 2) == 3",
}  # fmt: skip
CHECK = {"prompt": 'def add(a, b):\n    """Add."""\n', "test": "def check(c):\n    assert c(1, 2) == 3\n", "entry_point": "add"}
CASES = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
FUNCTIONAL = [
    {"input": "1\n2", "output": "3", "testtype": "functional"},
    {"input": "[1]\n[2]", "output": "[1, 2]", "testtype": "functional"},
]
CALLS = {"public_test_cases": json.dumps(FUNCTIONAL), "metadata": '{"func_name": "add"}'}
USABLE: list[tuple[TestFormat, dict[str, Any], int]] = [
    (Mbpp(), {"test_list": ["assert add(1, 2) == 3"]}, 1),
    (
        Mbpp(),
        {"test_list": ["assert add(1, 2) == x"], "test_setup_code": "x = 1 + add(1, 1)\r\n", "test_imports": ["import math"]},
        1,
    ),
    (Mbpp(challenge=True), {"test_list": ["assert add(1, 2) == 3"], "challenge_test_list": ["assert add(0, 0) == 0"]}, 2),
    (HumanEval(), CHECK, 1),
    (EvalPlus(), ROW, 2),
    (EvalPlus(plus=False), ROW, 1),
    (EvalPlus(), {**ROW, "plus_input": {}, "assertion": ""}, 1),
    (TestScript(), {"test": "import math\nx = add(1, 2)\nassert x == 3\nassert add(0, 0) == 0"}, 2),
    (TestScript(), {"test": "def check(f):\n    assert f(1, 2) == 3\ncheck(add)"}, 1),
    (TestScript(), {"test": "def test_a():\n    assert add(1, 2) == 3\ndef test_b():\n    assert add(2, 2) == 4\n"}, 2),
    (Apps(), {"input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [0, 0]], "outputs": [[3], 0]})}, 2),
    (LiveCodeBench(), CALLS, 2),
]


@pytest.mark.parametrize("case", range(len(USABLE)))
def test_usable_references_pass_right_programs_and_fail_wrong_ones(case: int) -> None:
    tests, reference, count = USABLE[case]
    read = tests.read(reference)
    assert isinstance(read, CallTests) and len(read.units) == count
    right = graded(ADD, reference, tests)
    assert right.status is Status.CORRECT, right.reason
    wrong = graded(ADD.replace("+", "-"), reference, tests)
    assert wrong.status is Status.INCORRECT, wrong.reason
    assert wrong.reward == 0.0


def test_a_method_of_solution() -> None:
    program = "class Solution:\n    def add(self, a, b): return a + b\n"
    for tests, reference in ((LiveCodeBench(), CALLS), (Apps(), USABLE[10][1])):
        assert graded(program, reference, tests).status is Status.CORRECT
        assert graded(program.replace("+", "-"), reference, tests).status is Status.INCORRECT
        assert "neither a class Solution" in graded("def other(): pass", reference, tests).reason


def test_apps_reads_lists_objects_and_keys() -> None:
    calls = {"fn_name": "f", "inputs": [[{"1": 2}]], "outputs": [[[[1, 2]]]]}
    program = "def f(d): return tuple(d.items())"
    assert graded(program, {"input_output": calls}, Apps()).status is Status.CORRECT
    runs = {"inputs": ["1 2\n", ["3", "4"]], "outputs": ["3\n", ["7", ""]]}
    read = Apps().read({"input_output": json.dumps(runs)})
    assert read == InputTests(cases=(("1 2\n", "3\n"), ("3\n4", "7\n")))
    program = "import sys\nprint(sum(map(int, sys.stdin.read().split())))"
    assert graded(program, {"input_output": runs}, Apps()).status is Status.CORRECT


def test_live_code_bench_adds_private_tests_and_never_unpickles() -> None:
    private = json.dumps([{"input": "5 5", "output": "10", "testtype": "stdin"}])
    read = LiveCodeBench().read({"public_test_cases": json.dumps(CASES), "private_test_cases": private})
    assert read == InputTests(cases=(("1 2\n", "3\n"), ("5 5", "10")))
    packed = base64.b64encode(zlib.compress(pickle.dumps(private))).decode()
    with pytest.raises(Unusable, match="pickle is refused"):
        LiveCodeBench().read({"public_test_cases": CASES, "private_test_cases": packed})


def test_units_of_a_script_keep_their_order() -> None:
    read = TestScript(field="t").read({"t": "x = [1]\nassert f(x) == 1\nx.append(2)\nassert f(x) == 2\ny = 3\nprint(y)"})
    assert read.units == ("x = [1]\nassert f(x) == 1", "x.append(2)\nassert f(x) == 2", "y = 3\nprint(y)")


REFUSED: list[tuple[TestFormat, dict[str, Any], str]] = [
    (Mbpp(), {"test_list": []}, "empty"),
    (Mbpp(), {"test_list": "assert f()"}, "not a list of texts"),
    (Mbpp(), {"test_list": ["assert f( == 3"]}, "does not compile"),
    (Mbpp(), {"test_list": ["assert 1"], "test_setup_code": "x = ("}, "does not compile"),
    (Mbpp(), {"test_list": ["assert 1"], "test_setup_code": 5}, "not a text"),
    (HumanEval(), {**CHECK, "entry_point": ""}, "entry_point"),
    (HumanEval(), {**CHECK, "entry_point": "a b"}, "no Python name"),
    (HumanEval(), {**CHECK, "test": "x = 1"}, "no function check"),
    (HumanEval(), {**CHECK, "prompt": "def f(:"}, "does not compile"),
    (EvalPlus(), {**ROW, "atol": "x"}, "atol"),
    (EvalPlus(), {**ROW, "atol": -1}, "atol"),
    (EvalPlus(), {**ROW, "base_input": [], "plus_input": []}, "no inputs"),
    (EvalPlus(), {**ROW, "base_input": [1]}, "list of lists"),
    (EvalPlus(), {**ROW, "canonical_solution": "return ("}, "does not compile"),
    (TestScript(), {"test": "import math\nx = 1"}, "asserts nothing"),
    (StdinStdout(), {"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
    (StdinStdout(), {"inputs": [1], "outputs": ["1"]}, "neither a text"),
    (Apps(), {"input_output": "{"}, "not JSON"),
    (Apps(), {"input_output": "[]"}, "not an object"),
    (Apps(), {"input_output": {"fn_name": "a b", "inputs": [[1]], "outputs": [1]}}, "no Python name"),
    (Apps(), {"input_output": {"fn_name": "f", "inputs": ["1"], "outputs": [1]}}, "list of arguments"),
    (LiveCodeBench(), {"public_test_cases": "[]"}, "no test cases"),
    (LiveCodeBench(), {"public_test_cases": [{"input": "1"}]}, "list of objects"),
    (LiveCodeBench(), {"public_test_cases": CASES + FUNCTIONAL}, "throughout"),
    (LiveCodeBench(), {"public_test_cases": FUNCTIONAL}, "no Python name"),
    (LiveCodeBench(), {**CALLS, "public_test_cases": [{**FUNCTIONAL[0], "output": "three"}]}, "not JSON"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_rows_that_cannot_be_used_say_why(case: int) -> None:
    tests, reference, reason = REFUSED[case]
    with pytest.raises(Unusable, match=reason):
        tests.read(reference)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("tests", FORMATS, ids=repr)
@given(data=st.data())
def test_any_reference_is_read_or_refused(tests: TestFormat, data: st.DataObject) -> None:
    reference = {name: data.draw(anything) for name in sorted(tests.fields())}
    try:
        tests.read(reference)
    except Unusable:
        return


def test_fields_out_of_range() -> None:
    for tests in (StdinStdout, Apps, LiveCodeBench):
        with pytest.raises(ConfigError, match=r"tests\.tolerance"):
            tests(tolerance=1.0)
