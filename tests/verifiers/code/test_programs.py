from __future__ import annotations

import time

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.verifiers.code.programs import Continuation, FencedBlock, WholeText

ADD = "def add(a, b):\n    return a + b\n"


def block(text: str, mark: str = "python", fence: str = "```") -> str:
    return f"{fence}{mark}\n{text}{fence}\n"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        (f"Here it is:\n{block(ADD)}Done.", ADD),
        (block("x = 1\n") + block(ADD), ADD),
        (block(ADD) + "Prints:\n" + block("3\n", mark=""), ADD),
        (block(ADD) + block("pip install x\n", mark="bash"), ADD),
        (block("x = 1\n", mark="") + block(ADD, mark=""), ADD),
        (block(ADD, mark="Python3"), ADD),
        (block(ADD, mark="py", fence="~~~~"), ADD),
        ("1. First\n   ```python\n   x = 1\n   y = 2\n   ```\n", "x = 1\ny = 2\n"),
        (f"```python title=a.py\n{ADD}```", ADD),
        ("```python\n'''\n````\n```\n", "'''\n"),
        (ADD, None),
        ("", None),
        ("```python\n```", None),
        (f"```python\n{ADD}", None),
        (block("x\n", mark="json"), None),
        (block(ADD) + "and more:\n```python\nx = ", ADD),
        (f"inline ```{ADD}``` is no block", None),
    ],
)
def test_the_last_closed_block_of_python(completion: str, program: str | None) -> None:
    assert FencedBlock().find("prompt", completion) == program


def test_after_thinking() -> None:
    thought = "<think>\n" + block("draft\n") + "</think>"
    for source in (FencedBlock(after_think=True), WholeText(after_think=True)):
        assert source.find("", f"{thought}") is None
        assert source.find("", block("draft\n")) is None
    assert FencedBlock(after_think=True).find("", thought + block(ADD)) == ADD
    assert FencedBlock().find("", thought) == "draft\n"
    assert WholeText(after_think=True).find("", f"<think>x</think>{ADD}") == ADD


def test_a_continuation_is_cut_at_the_next_statement() -> None:
    prompt = "def add(a, b):\n"
    assert Continuation().find(prompt, "    return a + b\n\nprint(add(1, 2))\n") == "def add(a, b):\n    return a + b\n"
    assert Continuation(stop=("END",)).find(prompt, "    pass END\ndef x") == "def add(a, b):\n    pass "
    assert Continuation().find(prompt, "\ndef other(): pass") is None
    assert Continuation(stop=()).find(prompt, "    pass") == "def add(a, b):\n    pass"
    with pytest.raises(ConfigError, match=r"programs\.stop"):
        Continuation(stop=("",))


@pytest.mark.parametrize(
    "part", ["```", "```python\n", "~~~", "`", " ", "\t", "```a", "```" + "a" * 50 + "`", "</think>", "\n", "\n```"]
)
def test_a_megabyte_of_anything_takes_no_time(part: str) -> None:
    text = part * (1_000_000 // len(part))
    start = time.perf_counter()
    for source in (FencedBlock(), FencedBlock(after_think=True), Continuation(), WholeText()):
        source.find("", text)
        source.find("", text + "x")
    assert time.perf_counter() - start < 20  # quadratic time would be hours


def test_the_whole_text() -> None:
    assert WholeText().find("", ADD) == ADD
    assert WholeText().find("", " \n") is None
