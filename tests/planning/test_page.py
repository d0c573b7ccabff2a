"""The page is narrow, has units, and its JSON is of the same numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from delta_lightning.planning.memory import Memory, Phase
from delta_lightning.planning.page import PlanPage, Work, gib
from delta_lightning.planning.rollouts import StepSizes
from delta_lightning.trainer.collate import Cut

SIZES = StepSizes.of(
    Cut(num_groups=8, updates=2, micro=2), completions=4, ranks=1, prompt_tokens=3, completion_tokens=7, attention="sdpa"
)
GIB = 1 << 30
MEMORY = Memory(
    stays={"parameters": 2 * GIB, "gradients": GIB},
    phases=[
        Phase(name="scoring", parts={"activations": GIB // 2}),
        Phase(name="update", parts={"kept": GIB, "chunk": 12 * GIB}),
    ],
    host={"hidden states": 5 * GIB},
)
PAGE = PlanPage(
    model=[("architecture", "qwen3")], expected=SIZES, worst=SIZES, memory_expected=MEMORY, memory_worst=MEMORY,
    work=Work(scoring=10**15, reference=0, updates=3 * 10**15, repeated=10**15, seconds_scoring=2.5, seconds_updates=7.5),
    speed="at 0.4 of 1 TFLOP/s on 1 device", device_memory=None, notes=["a note"], contradictions=["one", "two"],
)  # fmt: skip


def test_text() -> None:
    text = PAGE.text()
    assert all(len(line) < 128 for line in text.splitlines())
    rows = {line.strip().split("  ")[0]: line.split()[-1] for line in text.splitlines() if "  " in line.strip()}
    assert rows["stays"] == "3.00"
    assert rows["peak: update"] == "16.0"
    assert "1,000 TFLOP, 2.5 s" in text
    assert "Contradictions: 2\n  1. one\n  2. two" in text
    assert "Contradictions: none" in replace(PAGE, contradictions=[]).text()


def test_json() -> None:
    values = json.loads(json.dumps(PAGE.values()))
    assert values["memory_bytes"]["worst"]["peak"] == 16 * GIB
    assert values["memory_bytes"]["worst"]["peak_phase"] == "update"
    assert values["flops"]["updates"] == 3 * 10**15
    assert values["worst"]["trained"] == 32 * 7


@pytest.mark.parametrize(("size", "text"), [(0, "0.000"), (GIB // 2, "0.500"), (3 * GIB, "3.00"), (1234 * GIB, "1,234.0")])
def test_gib(size: int, text: str) -> None:
    assert gib(size) == text
