"""Any text at all, through the pool: a verdict within the limit, and no growth of memory."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from delta_lightning.types import Status
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.pool import VerifierPool
from support.verdicts import completion_of, prompt_with

TABLE = Path(__file__).with_name("mathematics.txt")
GOLDS = ["42", "\\frac{1}{3}", "\\sqrt{2}", "x^2+1", "(1,2)", "\\{1,2\\}", "\\text{Yes}", "x \\le 2", "1011_2", "3 \\pmod 7"]
_PIECES = [
    "\\frac{", "\\sqrt{", "}", "{", "^", "_", "(", ")", "[", "]", "\\{", "\\}", "\\pm ", "\\infty", "\\text{",
    "\\le ", "=", "\\cup ", "x", "y", "i", "e", "\\pi ", "1", "2", "42", "9^{9", "!", ",", ".", "\\%", "\\circ",
    "\\binom{", "\\begin{pmatrix}", "&", "\\\\", "\\end{pmatrix}", "\\sin ", "\\log_", "\\int ", "\\sum_{",
    "\\ldots ", "\\pmod ", ":", "|", "+", "-", "\\cdot ", "/", " ", "$", "\\boxed{",
]  # fmt: skip
TIMEOUT = 2.0


def _texts(number: int, seed: int) -> Iterator[str]:
    """Of seven kinds: pieces of LaTeX, right answers with a fault, bytes, any Unicode, nesting, powers, long ones."""
    draw = random.Random(seed)
    real = [side for line in TABLE.read_text(encoding="utf-8").splitlines() for side in line[2:].split(" <> ")]
    for index in range(number):
        kind = index % 7
        if kind == 0:
            yield "".join(draw.choices(_PIECES, k=draw.randint(1, 30)))
        elif kind == 1:
            text = draw.choice(real)
            place = draw.randrange(len(text) + 1)
            yield text[:place] + draw.choice(_PIECES) + text[place + draw.randint(0, 2) :]
        elif kind == 2:
            yield draw.randbytes(draw.randint(0, 200)).decode("latin-1")
        elif kind == 3:
            yield "".join(chr(draw.randrange(1, 0x2FFF)) for _ in range(draw.randint(0, 60)))
        elif kind == 4:
            opening, closing = draw.choice(
                ["()", "{}", "[]", ("\\sqrt{", "}"), ("\\frac{1}{", "}"), ("\\boxed{", "}"), ("|", "|")]
            )
            depth = draw.choice([3, 30, 300, 3000])
            yield opening * depth + "2" + closing * draw.choice([depth, depth - 1])
        elif kind == 5:
            base, exponent = (
                draw.choice(["9", "x", "2.5", "(x+y)", "10"]),
                draw.choice(["9^{9^9}", "999999999", "x^{x^x}", "10^{10}", "-99999"]),
            )
            yield f"{base}^{{{exponent}}}" + draw.choice(["", "+1", "!", "x"])
        else:
            yield draw.choice(real) * draw.choice([1, 10, 2000])


def _run(number: int, seed: int) -> tuple[Counter[Status], float, list[int]]:
    """Verdicts by status, the slowest time between two verdicts of a pool of one, and the worker's memory in kB over time."""
    found: Counter[Status] = Counter()
    memory: list[int] = []
    slowest = 0.0
    with VerifierPool(MathVerifier(), workers=1, timeout=TIMEOUT) as pool:
        for index, text in enumerate(_texts(number, seed)):
            boxed = text if index % 11 == 0 else f"so \\boxed{{{text}}}"
            before = time.monotonic()
            pool.submit(index, prompt_with(GOLDS[index % len(GOLDS)]), completion_of(boxed))
            ((_, verdict),) = pool.drain()
            restarted = verdict.status is Status.TIMEOUT or index == 0
            slowest = max(slowest, 0.0 if restarted else time.monotonic() - before)
            assert verdict.reward == (1.0 if verdict.status is Status.CORRECT else 0.0)
            assert verdict.status is not Status.ERROR, (GOLDS[index % len(GOLDS)], text[:300], verdict.reason)
            found[verdict.status] += 1
            if index % 100 == 99:
                memory.append(_resident())
    return found, slowest, memory


def _resident() -> int:
    """Memory of the worker processes of this test, kB."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            if int(status["PPid"]) == os.getpid() and b"delta_lightning" in (process / "cmdline").read_bytes():
                total += int(status.get("VmRSS", "0 kB").split()[0])
    return total


def test_five_hundred_texts() -> None:
    found, slowest, _ = _run(490, seed=1)
    assert found.total() == 490
    assert found[Status.CORRECT] < 50  # some faults leave an answer right
    assert found[Status.TIMEOUT] < 150
    assert slowest < TIMEOUT + 30  # a new worker imports for some seconds on a busy machine


def test_a_megabyte_is_read_at_once() -> None:
    part = MathVerifier()
    for text in (
        "\\boxed{" * 150_000,
        "{" * 1_000_000,
        "\\boxed{" + "1" * 1_000_000 + "}",
        "\x00" * 1_000_000,
        "$" * 1_000_000,
    ):
        began = time.monotonic()
        assert part.score(prompt_with("42"), completion_of(text)).status in (Status.NO_ANSWER, Status.INCORRECT)
        assert time.monotonic() - began < 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_texts_and_memory() -> None:
    found, _, memory = _run(10_000, seed=2)
    assert found.total() == 10_000
    assert found[Status.TIMEOUT] < 3_000
    # A worker that is killed starts again small, so look at the largest of the first and of the last fifth.
    fifth = len(memory) // 5
    assert max(memory[-fifth:]) < 1.5 * max(memory[:fifth]) + 50_000, memory
