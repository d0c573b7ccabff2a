"""What tests may do with a program through the proxy, in the sandbox of this machine."""

from __future__ import annotations

import pytest

from delta_lightning.sandbox import Limits
from delta_lightning.types import Status
from delta_lightning.verifiers.code import HumanEval
from support.programs import asserts, graded

RIGHT: dict[str, tuple[str, ...]] = {
    "positional and named": (
        "def f(a, *b, c=1, **d): return [a, b, c, d]",
        "assert f(1, 2, c=3, e=4) == [1, (2,), 3, {'e': 4}]",
    ),
    "types are kept": (
        "def f(x): return x",
        "assert f((1, [2.0, {3}])) == (1, [2.0, {3}])",
        "assert type(f(True)) is bool",
        "assert f((1,)) != [1]",
    ),
    "not a number": (
        "def f(): return float('nan')",
        "x = f()\nassert x != x",
        "import math\nassert math.isnan(f())",
    ),
    "list in place": (
        "def f(x): x.sort()",
        "x = [3, 1, 2]\nassert f(x) is None and x == [1, 2, 3]",
    ),
    "list in a list in place": (
        "def f(m): m[0].append(9)",
        "row = [1]\nm = [row, [2]]\nf(m)\nassert m == [[1, 9], [2]] and row == [1, 9]",
    ),
    "dict, set and deque in place": (
        "def f(d, s, q):\n d['b'] = 2; s.add(2); q.append(2); del d['a']",
        "from collections import deque\n"
        "d, s, q = {'a': 1}, {1}, deque([1])\n"
        "f(d, s, q)\n"
        "assert (d, s, q) == ({'b': 2}, {1, 2}, deque([1, 2]))",
    ),
    "named argument in place": (
        "def f(x): x.clear()",
        "x = [1]\nf(x=x)\nassert x == []",
    ),
    "from 1 to True in place": (
        "def f(x): x[0] = True",
        "x = [1]\nf(x)\nassert x[0] is True",
    ),
    "tuples in a sorted list": (
        "def f(x): x.sort(key=len); return x",
        "assert f([(1, 2), (3,)]) == [(3,), (1, 2)]",
    ),
    "exception": (
        "def f(x):\n if x < 0: raise ValueError('negative')\n return {}[x]",
        "try:\n    f(-1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'negative'",
        "try:\n    f(1)\n    assert False, 'no'\nexcept KeyError:\n    pass",
    ),
    "own exception by its base": (
        "class Bad(ValueError): pass\ndef f(): raise Bad('x')",
        "try:\n    f()\n    raise RuntimeError\nexcept ValueError:\n    pass",
    ),
    "generator": (
        "def f(n):\n for i in range(n): yield i",
        "assert list(f(3)) == [0, 1, 2]",
        "g = f(9**9)\nassert (next(g), next(g)) == (0, 1)",
        "assert f(0) != []",
    ),
    "iterators of the library": (
        "def f(x): return map(str, x), zip(x, x)",
        "a, b = f([1, 2])\nassert list(a) == ['1', '2'] and dict(b) == {1: 1, 2: 2}",
    ),
    "function argument": (
        "def f(g, x): return [g(v) for v in x]",
        "assert f(lambda v: v + 1, [1, 2]) == [2, 3]",
        "assert f(abs, [-1]) == [1]",
        "assert f(str, [1]) == ['1']",
    ),
    "function argument that calls back": (
        "def f(g): return g(f) if callable(g) else 5",
        "assert f(lambda h: h(3) + 1) == 6",
    ),
    "exception in a function argument": (
        "def f(g):\n try: g()\n except Exception: return 'caught'",
        "def bad(): raise KeyError(1)\nassert f(bad) == 'caught'",
    ),
    "function result": (
        "def f(n): return lambda x: x + n",
        "assert f(2)(3) == 5",
    ),
    "class": (
        "class P:\n"
        "  def __init__(self, x): self.x = x\n"
        "  def plus(self, o): return P(self.x + o.x)\n"
        "  def __len__(self): return 7\n"
        "  def __getitem__(self, i): return i * 2",
        "a = P(1)\nb = a.plus(P(2))\nassert b.x == 3 and len(a) == 7 and a[4] == 8",
        "a = P(1)\na.x = [5]\nassert a.x == [5] and a == a and a != P(1)",
    ),
    "instances in containers": (
        "class N:\n  v = 1\ndef f(): return [N(), {'k': N()}]\ndef g(n): return n.v",
        "x = f()\nassert x[0].v == 1 and g(x[1]['k']) == 1",
    ),
    "dataclass and named tuple": (
        "from dataclasses import dataclass\n"
        "from collections import namedtuple\n"
        "@dataclass\n"
        "class D:\n"
        "  a: int = 1\n"
        "T = namedtuple('T', 'x y')\n"
        "def f(): return T(1, 2)",
        "assert D().a == 1 and D(a=2).a == 2",
        "assert f() == (1, 2)",
    ),
    "match object": (
        "import re\ndef f(s): return re.search('b', s)",
        "assert f('abc') and not f('x') and f('x') is None",
        "assert f('abc').group() == 'b'",
    ),
    "constants": (
        "LIMIT = {'a': (1, 2)}\ndef f(): return LIMIT",
        "assert LIMIT == {'a': (1, 2)} and f() == LIMIT",
    ),
    "modules that only the program imports": (
        "import math, sys\ndef f(): return math.pi",
        "assert f() == math.pi and sys.getsizeof(()) > 0",
    ),
    "a function called like a built-in": (
        "def sum(a, b): return a - b",
        "assert sum(5, 3) == 2",
    ),
    "counters and their kind": (
        "from collections import Counter, OrderedDict\ndef f(s): return Counter(s)",
        "assert f('aab') == {'a': 2, 'b': 1} and f('a').most_common(1) == [('a', 1)]",
    ),
    "numbers": (
        "from fractions import Fraction\n"
        "from decimal import Decimal\n"
        "def f(): return 10**9999, Fraction(1, 3), Decimal('0.1'), 1j",
        "from fractions import Fraction\nassert f()[0] == 10**9999 and f()[1] == Fraction(1, 3) and f()[3] == 1j",
    ),
    "modules not loaded before": (
        "import colorsys, hashlib, csv\ndef f(): return csv.__name__",
        "assert f() == 'csv'",
    ),
    "output goes nowhere": (
        "print('1' * 10**6)\ndef f():\n print('x'); return 1",
        "assert f() == 1",
    ),
    "annotations are not the judge's": (
        "x: list[int] = []\ndef f() -> Unknown if False else int: return 1",
        "assert f() == 1",
    ),
    "main is not run": (
        "def f(): return 1\nif __name__ == '__main__': raise SystemExit",
        "assert f() == 1",
    ),
    "recursion": (
        "def f(n): return n if n < 2 else f(n - 1) + 1",
        "assert f(800) == 800",
    ),
    "threads": (
        "import threading\ndef f():\n r = []\n t = threading.Thread(target=r.append, args=(1,)); t.start(); t.join(); return r",
        "assert f() == [1]",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_tests_may_do(name: str) -> None:
    program, *tests = RIGHT[name]
    verdict = asserts(program, *tests)
    assert verdict.status is Status.CORRECT, verdict.reason
    assert verdict.reward == 1.0 and verdict.measures == {"passed_share": 1.0, "suspicious": 0.0}


WRONG: dict[str, tuple[str, ...]] = {
    "wrong": (
        "def f(): return 1",
        "assert f() == 2",
    ),
    "missing": (
        "def g(): return 1",
        "assert f() == 1",
    ),
    "syntax": (
        "def f(: return 1",
        "assert True",
    ),
    "null byte": (
        "def f(): return 1\x00",
        "assert True",
    ),
    "lone surrogate": (
        "x = '\ud800'",
        "assert True",
    ),
    "fails while it loads": (
        "raise ValueError('no')",
        "assert True",
    ),
    "ends while it loads": (
        "raise SystemExit(0)",
        "assert True",
    ),
    "is gone while it loads": (
        "import os\nos._exit(0)",
        "assert True",
    ),
    "ends in a call": (
        "def f(): raise SystemExit(0)",
        "f()\nassert f() == 1",
    ),
    "interrupt": (
        "def f(): raise KeyboardInterrupt",
        "try:\n    f()\nexcept Exception:\n    assert False",
    ),
    "nested too deep": (
        "def f():\n x = []\n for _ in range(100): x = [x]\n return x",
        "assert f()",
    ),
    "in itself": (
        "def f():\n x = []\n x.append(x)\n return x",
        "assert f()",
    ),
    "too large": (
        "def f(): return 'x' * 10**7",
        "assert f()",
    ),
    "an iterator is no list": (
        "def f(): return iter([1])",
        "assert f() == [1]",
    ),
    "sets of what cannot be in one": (
        "def f(): return 1",
        "assert {f(): 1} == {2: 1}",
    ),
    "redefines what tests compare with": (
        "def f(): return 1\ndef sorted(x): return [2]\ndef abs(x): return 0\nclass list: pass\ndef isinstance(*a): return True",
        "assert sorted([f()]) == [2]",
        "assert abs(f() - 9) < 1",
        "assert isinstance(f(), str)",
    ),
    "equal to everything": (
        "class E:\n def __eq__(self, o): return True\ndef f(): return E()",
        "assert f() == 1",
        "assert [f()] == [1]",
    ),
    "says that it is a number": (
        "class E(int):\n def __eq__(self, o): return True\n __hash__ = int.__hash__\ndef f(): return E(3)",
        "assert f() == 1",
    ),
    "an empty name of its own": (
        "f = None",
        "assert f() == 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong(name: str) -> None:
    program, *tests = WRONG[name]
    verdict = asserts(program, *tests)
    assert verdict.status is Status.INCORRECT and verdict.reward == 0.0, verdict.reason
    assert verdict.reason and verdict.measures["passed_share"] < 1


def test_the_share_of_tests_passed() -> None:
    tests = ("assert f(1) == 1", "assert f(2) == 0", "assert f(3) == 3", "f(4) / 0")
    program = "def f(x): return x"
    verdict = asserts(program, *tests)
    assert (verdict.status, verdict.reward, verdict.measures["passed_share"]) == (Status.INCORRECT, 0.0, 0.5)
    assert asserts(program, *tests, reward="share").reward == 0.5
    assert asserts(program, tests[0], reward="share").reward == 1.0


def test_a_time_out_counts_what_had_passed() -> None:
    program = "def f(x):\n while x == 2: pass\n return x"
    verdict = asserts(program, "assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3", seconds=0.5)
    assert verdict.status is Status.TIMEOUT and verdict.reward == 0.0
    assert verdict.measures["passed_share"] == pytest.approx(1 / 3)
    assert asserts("while True: pass", "assert True", seconds=0.3).status is Status.TIMEOUT
    assert asserts("def f(): return 1", "while True: f()", seconds=0.3).status is Status.TIMEOUT


def test_tests_that_fail_by_themselves_are_our_error() -> None:
    reference = {"prompt": "import no_such_module\ndef f(): pass", "test": "def check(candidate): pass", "entry_point": "f"}
    verdict = graded("def f(): pass", reference, HumanEval())
    assert verdict.status is Status.ERROR and "broken" in verdict.reason and "no_such_module" in verdict.reason


def test_helpers_of_the_prompt_are_the_tests_own() -> None:
    reference = {
        "prompt": 'def double(x):\n    return 2 * x\n\ndef f(x):\n    """Doubles."""\n',
        "test": "def check(candidate):\n    assert candidate(3) == double(3)\n",
        "entry_point": "f",
    }
    cheat = "def double(x): return 0\ndef f(x): return 0"
    assert graded(cheat, reference, HumanEval()).status is Status.INCORRECT
    assert graded("def f(x): return x + x", reference, HumanEval()).status is Status.CORRECT


def test_memory() -> None:
    verdict = asserts("x = []\nwhile True: x.append(bytearray(10**7))", "assert True", limits=Limits(memory_mib=64))
    assert verdict.status is Status.INCORRECT and "emory" in verdict.reason


@pytest.mark.parametrize(
    "value",
    [
        "'x' * (4 * 10**6)",
        pytest.param("[[] for _ in range(600_000)]", marks=pytest.mark.slow),
        pytest.param("[{} for _ in range(600_000)]", marks=pytest.mark.slow),
        pytest.param("list(range(600_000))", marks=pytest.mark.slow),
        pytest.param("{str(i): i for i in range(200_000)}", marks=pytest.mark.slow),
    ],
)
def test_a_program_cannot_run_its_judge_out_of_memory(value: str) -> None:
    """Tests that keep whatever they get: past a total the program is cut off, and that is its own failure."""
    verdict = asserts(
        f"def f(): return {value}", "x = [f() for _ in range(200)]\nassert not x", seconds=9, limits=Limits(memory_mib=256)
    )
    assert verdict.status in (Status.INCORRECT, Status.TIMEOUT), verdict.reason


_SPEAK = """
import json, os, time
def send(message):
    data = json.dumps(message).encode()
    os.write(3, b"%08x" % len(data) + data)
"""
_FORGED = {
    "a call before it has run": (_SPEAK + "send(['back', 0, ['t'], ['d']])\ntime.sleep(9)", "assert f() == 2"),
    "ends while its text is asked for": (
        "import os\nclass A:\n def __str__(self): os._exit(0)\n __repr__ = __str__\ndef f(): return A()",
        "result = f()\nassert result == 2, result",
    ),
    "a key whose text is a fault": (
        "class A:\n def __repr__(self): return Ellipsis\ndef f(): return A()\nimport os\nA.__repr__ = lambda _: os._exit(1)",
        "{1: 2}[f()]",
    ),
    "a short value that is long to walk": (
        "def f(): return range(10**15)",
        "kept = []\nfor _ in f(): kept.append(b'x' * 100_000)",
    ),
}


@pytest.mark.parametrize("name", _FORGED)
def test_no_program_makes_its_verdict_our_error(name: str) -> None:
    program, test = _FORGED[name]
    verdict = asserts(program, test)
    assert verdict.status is Status.INCORRECT, verdict.reason


def test_a_program_does_not_replace_the_modules_that_tests_use() -> None:
    near = "assert math.isclose(f(), 2.0)"
    assert asserts("import math\ndef f(): return math.sqrt(4)", near).status is Status.CORRECT
    cheat = "class math:\n isclose = staticmethod(lambda *_: True)\ndef f(): return 5"
    assert asserts(cheat, near).status is Status.INCORRECT
    assert (
        asserts("def copy(x): return x + x", "assert copy([1]) == [1, 1]", "x = 2\nassert copy(x) == 4").status
        is Status.CORRECT
    )
    late = (
        "import sys\nanswers = sys._getframe(1).f_locals['channel']\n"
        "from frames import Channel\nfrom candidate import Answers\n"
        "asked = []\n"
        "def on_names(self, wanted):\n"
        "    asked.append(wanted)\n"
        "    return [[]] if len(asked) == 1 else [[[n, self._encode(lambda *_: True)] for n in (*wanted, 'f')]]\n"
        "Answers.on_names = on_names\n"
    )
    assert asserts(late, near).status is Status.INCORRECT


def test_the_program_never_sees_the_tests() -> None:
    """It returns all text that it can find in its own process; the tests' text is not in it."""
    program = """
import gc, sys
def f():
    found = [o for o in gc.get_objects() if type(o) in (dict, list, tuple)]
    frame, texts = sys._getframe(0), []
    while frame:
        texts += [str(frame.f_locals), str(frame.f_globals)]
        frame = frame.f_back
    texts += [s for o in found for s in (o.values() if type(o) is dict else o) if type(s) in (str, bytes)]
    secret = "-".join(["secret", "marker", str(7780 + len(sys.path[:1]))])
    return any(secret in str(t) for t in texts)
"""
    verdict = asserts(program, "x = 'secret-marker-7781'\nassert f() is False")
    assert verdict.status is Status.CORRECT, verdict.reason
    assert verdict.measures["suspicious"] == 1.0
