from __future__ import annotations

import time

import pytest

from delta_lightning.sandbox import Limits
from delta_lightning.types import Status, Verdict
from delta_lightning.verifiers.code import StdinStdout
from delta_lightning.verifiers.code.input_judge import agrees
from support.programs import graded

ADD = "print(sum(map(int, input().split())))"


def run(program: str, *cases: tuple[str, str], tolerance: float = 0.0, **settings: float) -> Verdict:
    reference = {"inputs": [text for text, _ in cases], "outputs": [output for _, output in cases]}
    return graded(program, reference, StdinStdout(tolerance=tolerance), **settings)


RIGHT = {
    "input": ADD,
    "stdin": "import sys\nprint(sum(int(x) for x in sys.stdin.read().split()))",
    "buffer and main": (
        "import sys\nif __name__ == '__main__':\n  sys.stdout.write(str(sum(map(int, sys.stdin.buffer.readline().split()))))"
    ),
    "descriptors": "import os\na, b = os.read(0, os.fstat(0).st_size).split()\nos.write(1, b'%d\\n' % (int(a) + int(b)))",
    "open(0)": "a, b = map(int, open(0))if 0 else map(int, open(0).read().split())\nprint(a + b)",
    "a thread": (
        "import threading\ndef f(): print(sum(map(int, input().split())))\n"
        "threading.stack_size(2**26)\nthreading.Thread(target=f).start()"
    ),
    "exit": ADD + "\nexit()",
    "sys.exit(0)": ADD + "\nimport sys\nsys.exit(0)",
    "at exit": "import atexit\natexit.register(print, sum(map(int, input().split())))",
    "/dev/stdin": "a, b = map(int, open('/dev/stdin').read().split())\nprint(a + b)",
    "closes its output": ADD + "\nimport sys\nsys.stdout.close()",
    "sys.exit(False)": ADD + "\nimport sys\nsys.exit(False)",
    "does not read all": "print(3)",
}


@pytest.mark.parametrize("name", RIGHT)
def test_ways_to_read_and_write(name: str) -> None:
    if name != "does not read all":
        verdict = run(RIGHT[name], ("1 2\n", "3"), ("-5 7", "2\n"))
    else:
        verdict = run(RIGHT[name], ("9 " * 1_000_000, "3"))
    assert verdict.status is Status.CORRECT, verdict.reason
    assert verdict.reward == 1.0 and verdict.measures["passed_share"] == 1.0


WRONG = {
    "wrong": "print(4)",
    "nothing": "",
    "right and an exception": ADD + "\nraise ValueError",
    "right and a bad exit": ADD + "\nraise SystemExit(3)",
    "right and a message": ADD + "\nimport sys\nsys.exit('no')",
    "right and a crash": ADD + "\nimport os, sys\nsys.stdout.flush()\nos.abort()",
    "syntax": "print(",
    "too much": "print('x' * 10**7)",
    "the input back": "print(input())",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones(name: str) -> None:
    verdict = run(WRONG[name] or "pass", ("1 2\n", "3"))
    assert verdict.status is Status.INCORRECT and verdict.reward == 0.0
    assert verdict.reason.startswith("input 1: ")


def test_an_expected_nothing_needs_a_clean_end() -> None:
    assert run("pass", ("1", "")).status is Status.CORRECT
    assert run("x = int(input())", ("1", "\n")).status is Status.CORRECT
    for program in ("raise ValueError", "import os; os._exit(1)", "1/0", "import os; os.abort()", "(", "print(1)"):
        assert run(program, ("1", "")).status is Status.INCORRECT, program


def test_each_input_has_a_program_of_its_own() -> None:
    count = "import os\nfor n in range(9):\n  if not os.path.exists(str(n)): break\nopen(str(n), 'w').close()\nprint(n)"
    verdict = run(count, ("", "0"), ("", "0"), ("", "1"))
    assert verdict.status is Status.INCORRECT and verdict.measures["passed_share"] == pytest.approx(2 / 3)


def test_the_limit_is_for_all_inputs_together() -> None:
    verdict = run("import time\ntime.sleep(float(input()))", ("0.01", ""), ("30", ""), ("0", ""), seconds=0.5)
    assert verdict.status is Status.TIMEOUT and verdict.reward == 0.0
    assert verdict.measures["passed_share"] == pytest.approx(1 / 3)
    closes = "import os, time\nos.close(1)\ntime.sleep(30)"
    assert run(closes, ("", ""), seconds=0.5).status is Status.TIMEOUT
    writes = "while True: print('x', flush=True)"
    assert run(writes, ("", "x"), seconds=3.0).status in (Status.INCORRECT, Status.TIMEOUT)


def test_an_input_larger_than_the_disk_leaves_the_disk_empty() -> None:
    program = "import sys\nprint(len(sys.stdin.read()))\nopen('/tmp/mine', 'w').write('x' * 5000)"
    verdict = graded(
        program, {"inputs": ["x" * (2 << 20)], "outputs": [str(2 << 20)]}, StdinStdout(), limits=Limits(disk_mib=1)
    )
    assert verdict.status is Status.CORRECT, verdict.reason


def test_urgent_bytes_hold_up_nothing() -> None:
    """A read skips them, but `poll` announces them: a read that waits would wait as long as the program likes."""
    program = "import socket, time\nsocket.socket(fileno=1).send(b'3', socket.MSG_OOB)\ntime.sleep(20)"
    began = time.monotonic()
    assert run(program, ("", "3"), seconds=0.5).status is Status.TIMEOUT
    assert time.monotonic() - began < 10


def test_a_child_that_holds_the_output_open_holds_up_nothing() -> None:
    program = "import os, time\nprint(3, flush=True)\nif os.fork() == 0: time.sleep(60)"
    assert run(program, ("", "3"), seconds=4.0).status is Status.CORRECT


@pytest.mark.parametrize(
    ("output", "expected", "tolerance", "same"),
    [
        ("3", "3\n", 0, True),
        ("3 \n4\t\n\n", "3\n4", 0, True),
        (" 3", "3", 0, False),
        ("3\n\n4", "3\n4", 0, False),
        ("3\r\n4\r\n", "3\n4\n", 0, True),
        ("", "", 0, True),
        ("\n", "", 0, True),
        ("0.3000001", "0.3", 1e-6, True),
        ("0.3000001", "0.3", 0, False),
        ("1000000.5", "1000000", 1e-6, True),
        ("a 1.0", "a 1", 1e-6, True),
        ("b 1.0", "a 1", 1e-6, False),
        ("1 1", "1", 1e-6, False),
        ("nan", "1", 1e-6, False),
        ("inf", "1", 1e-6, False),
        ("1_0", "10", 1e-6, False),
        ("9" * 10**6, "1", 1e-6, False),
        ("٣", "3", 0, False),
    ],
)
def test_outputs_that_agree(output: str, expected: str, tolerance: float, same: bool) -> None:
    assert agrees(output, expected, tolerance) is same
