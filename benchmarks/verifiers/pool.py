"""What the verifier pool costs: `python benchmarks/verifiers/pool.py [results.json]`. Two to three minutes on two cores.

The answers to mathematics are the worked solutions of MATH-500 (`math500/test.jsonl` in the folder that DELTA_DATA names): half
of them with their own reference, half with another problem's.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from delta_lightning.interfaces import Verifier
from delta_lightning.report import provenance
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.mathematics.math_verifier import MathVerifier
from delta_lightning.verifiers.pool import VerifierPool

Item = tuple[Prompt, Completion]
ANSWERS = 512
REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class Trivial(Verifier):
    """Answers at once; sleeps where the text asks for it, and for ever where it says hang."""

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        word, _, seconds = completion.text.partition(" ")
        if word == "hang":
            time.sleep(3600)
        if word == "sleep":
            time.sleep(float(seconds))
        return Verdict(status=Status.CORRECT, reward=1.0)


def item(text: str, answer: str = "1", tokens: int = 0, prompt: str = "") -> Item:
    return (
        Prompt(id=prompt, text=prompt, token_ids=(), source="", reference={"answer": answer}),
        Completion(
            prompt_id=prompt, sample_index=0, token_ids=tuple(range(tokens)), text=text, finish_reason="stop", version=0,
            logprobs=(0.0,) * tokens, raw_logprobs=(0.0,) * tokens,
        ),
    )  # fmt: skip


def mathematics() -> list[Item]:
    file = Path(os.environ["DELTA_DATA"]) / "math500" / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = (rows * 2)[:ANSWERS]
    return [
        item(row["solution"], (row if number % 2 else rows[number - 1])["answer"], tokens=len(row["solution"]) // 4)
        for number, row in enumerate(rows)
    ]


def started(verifier: Verifier, workers: int, timeout: float = 10.0) -> VerifierPool:
    """A pool whose workers have all answered."""
    pool = VerifierPool(verifier, workers=workers, timeout=timeout)
    for number in range(64 * workers):
        pool.submit(number, *item("sleep 0.02" if isinstance(verifier, Trivial) else "\\boxed{1}"))
    list(pool.drain())
    time.sleep(0.5)
    return pool


def at_once(pool: VerifierPool, items: Sequence[Item]) -> dict[str, float]:
    """Everything submitted in a row: seconds until the last verdict, and what `submit` took."""
    begun = time.perf_counter()
    for number, each in enumerate(items):
        pool.submit(number, *each)
    submitted = time.perf_counter() - begun
    assert sum(1 for _ in pool.drain()) == len(items)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "per_second": len(items) / seconds, "us_per_item": 1e6 * seconds / len(items),
            "us_of_submit": 1e6 * submitted / len(items)}  # fmt: skip


def streamed(pool: VerifierPool, items: Sequence[Item], *, over: float, burst: int) -> float:
    """Completions arrive in bursts, evenly over so many seconds: seconds from the last arrival to the last verdict."""
    begun = time.perf_counter()
    for number, each in enumerate(items):
        due = begun + over * (number // burst + 1) / (len(items) // burst)
        if number % burst == 0 and due > time.perf_counter():
            time.sleep(due - time.perf_counter())
        pool.submit(number, *each)
    last = time.perf_counter()
    assert sum(1 for _ in pool.drain()) == len(items)
    return time.perf_counter() - last


def middle(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians."""
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def overhead() -> dict[str, object]:
    found: dict[str, object] = {}
    kinds = {"short": [item("x")] * 20_000, "20 000 characters, 5 000 tokens": [item("x" * 20_000, tokens=5_000)] * 2_000}
    for name, items in kinds.items():
        for workers in (1, 2):
            with started(Trivial(), workers) as pool:
                found[f"{name}; {workers} workers"] = middle([at_once(pool, items) for _ in range(REPEATS)])
    verifier, items = Trivial(), kinds["short"]
    begun = time.perf_counter()
    for each in items:
        verifier.score(*each)
    found["without a pool, us_per_item"] = round(1e6 * (time.perf_counter() - begun) / len(items), 3)
    return found


def latency() -> dict[str, float]:
    """Seconds from the last token to the last verdict, for 512 answers to mathematics."""
    items = mathematics()
    found = {}
    with started(MathVerifier(), 2) as pool:
        runs = [at_once(pool, items)["seconds"] for _ in range(REPEATS)]
        found["all 512 at once"] = statistics.median(runs)
        for burst, over in ((1, 4.0), (32, 4.0), (128, 4.0)):
            runs = [streamed(pool, items, over=over, burst=burst) for _ in range(3)]
            found[f"in bursts of {burst} over {over:g} s"] = statistics.median(runs)
    return {name: round(seconds, 4) for name, seconds in found.items()}


def limits() -> dict[str, float]:
    """How late a verdict at its limit comes, and what hanging answers cost the others."""
    found = {}
    for workers in (1, 2):
        items = [item("hang" if number % 32 == 0 else "sleep 0.002") for number in range(256)]
        with started(Trivial(), workers, timeout=0.5) as pool:
            begun = time.perf_counter()
            for number, each in enumerate(items):
                pool.submit(number, *each)
            seconds = {key: second for key, _, second in pool.drain_timed()}
            whole = time.perf_counter() - begun
            assert pool.counts.timeouts == 8
        found[f"8 of 256 hang, limit 0.5 s, {workers} workers: seconds"] = whole
        found[f"8 of 256 hang, limit 0.5 s, {workers} workers: longest beyond the limit"] = max(seconds.values()) - 0.5
    for name, verifier in (("trivial", Trivial()), ("MathVerifier", MathVerifier())):
        begun = time.perf_counter()
        with VerifierPool(verifier, workers=1, timeout=30.0) as pool:
            pool.submit(0, *item("\\boxed{1}"))
            list(pool.drain())
            found[f"a new worker until its first verdict, {name}: seconds"] = time.perf_counter() - begun
    return {name: round(value, 4) for name, value in found.items()}


def main(out: str | None = None) -> None:
    results = {"overhead": overhead(), "latency": latency(), "limits": limits(), "provenance": provenance()}
    text = json.dumps(results, indent=1) + "\n"
    print(text)
    if out is not None:
        Path(out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
