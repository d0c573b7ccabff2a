"""The `code_eval` metric of the `evaluate` library, with every program in a sandbox.

    import evaluate
    from delta_lightning.verifiers.code import CODE_EVAL
    metric = evaluate.load(CODE_EVAL)
    metric.compute(references=["assert add(2, 3) == 5"], predictions=[["def add(a, b): return a + b"]], k=[1])

`evaluate` loads this file by its path, without the Hub. Same interface as the metric there, whose programs run unguarded.
"""

from __future__ import annotations

import math
from typing import Any

import datasets
import evaluate  # type: ignore[import-untyped, import-not-found, unused-ignore]

from delta_lightning.errors import RunError
from delta_lightning.functional.pass_at_k import pass_at_k
from delta_lightning.sandbox import Limits
from delta_lightning.types import Completion, Prompt, Status, Verdict
from delta_lightning.verifiers.code import CodeVerifier, TestScript, WholeText
from delta_lightning.verifiers.pool import VerifierPool

_DESCRIPTION = "pass@k of programs by unit tests; program and tests run in two sandbox cells, apart from this process."
_INPUTS = """
Args:
    predictions: for each problem a list of programs.
    references: for each problem a text of tests, such as "assert add(2, 3) == 5".
    k: numbers k of pass@k (default 1, 10, 100); one that exceeds the programs of some problem is left out.
    num_workers: verifier processes (default 4).
    timeout: wall-clock limit in seconds of a program with its tests (default 3).
Returns:
    pass_at_k: {"pass@k": float}.
    results: by the problem's number a list of (program's number, {"task_id", "passed", "result", "completion_id"}).
"""
_CITATION = "Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374"


class CodeEval(evaluate.Metric):  # type: ignore[misc]
    """See the module."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features)

    def _compute(
        self,
        predictions: list[list[str]],
        references: list[str],
        k: tuple[int, ...] = (1, 10, 100),
        num_workers: int = 4,
        timeout: float = 3.0,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """Raises `ValueError` for tests that do not compile, `RunError` where the sandbox fails: neither is a wrong program."""
        limits = Limits(cpu_seconds=math.ceil(timeout) + 2)
        verifier = CodeVerifier(tests=TestScript(), programs=WholeText(), seconds=timeout, limits=limits)
        for number, test in enumerate(references):
            refused = verifier.refuse_reference({"test": test})
            if refused is not None:
                raise ValueError(f"reference {number}: {refused}")
        verdicts: dict[tuple[int, int], Verdict] = {}
        with VerifierPool(verifier, workers=num_workers, timeout=verifier.limit_seconds() + 2) as pool:
            for task, (programs, test) in enumerate(zip(predictions, references, strict=True)):
                prompt = Prompt(id=str(task), text="", token_ids=(), source="code_eval", reference={"test": test})
                for number, program in enumerate(programs):
                    pool.submit((task, number), prompt, _completion(prompt, number, program))
            verdicts.update(pool.drain())  # type: ignore[arg-type]
        results: dict[int, list[tuple[int, dict[str, Any]]]] = {task: [] for task in range(len(references))}
        for (task, number), verdict in sorted(verdicts.items(), key=lambda item: item[0]):
            passed = verdict.status is Status.CORRECT
            row = {"task_id": task, "passed": passed, "result": _result(verdict), "completion_id": number}
            results[task].append((number, row))
        counts = [(len(rows), sum(row["passed"] for _, row in rows)) for rows in results.values()]
        possible = [one for one in k if counts and all(n >= one for n, _ in counts)]
        return {f"pass@{one}": sum(pass_at_k(n, c, one) for n, c in counts) / len(counts) for one in possible}, results


def _result(verdict: Verdict) -> str:
    if verdict.status in (Status.ERROR, Status.UNAVAILABLE):
        raise RunError(f"code_eval could not judge a program: {verdict.reason}")
    return {Status.CORRECT: "passed", Status.TIMEOUT: "timed out"}.get(verdict.status, f"failed: {verdict.reason}")


def _completion(prompt: Prompt, number: int, program: str) -> Completion:
    return Completion(
        prompt_id=prompt.id, sample_index=number, token_ids=(), text=program, finish_reason="stop", version=0, logprobs=(),
        raw_logprobs=(),
    )  # fmt: skip
