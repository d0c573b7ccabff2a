from __future__ import annotations

import dataclasses

import pytest

from delta_lightning.types import Example, Status
from delta_lightning.verifiers.code.code_verifier import CodeVerifier
from delta_lightning.verifiers.code.formats.apps import Apps
from delta_lightning.verifiers.code.formats.eval_plus import EvalPlus
from delta_lightning.verifiers.code.formats.human_eval import HumanEval
from delta_lightning.verifiers.code.formats.live_code_bench import LiveCodeBench
from delta_lightning.verifiers.code.formats.mbpp import Mbpp
from delta_lightning.verifiers.code.formats.stdin_stdout import StdinStdout
from delta_lightning.verifiers.code.formats.test_format import TestFormat
from delta_lightning.verifiers.code.formats.test_script import TestScript
from delta_lightning.verifiers.code.programs import Continuation, FencedBlock, ProgramSource, WholeText
from support.verdicts import completion_of, prompt_with

FORMATS = [Mbpp(), Mbpp(challenge=True), HumanEval(), TestScript(field="t"), StdinStdout(), Apps(), LiveCodeBench(), EvalPlus()]


def _status(verifier: CodeVerifier, example: Example) -> Status:
    prompt = dataclasses.replace(prompt_with(""), reference=example.reference)
    return verifier.score(prompt, completion_of(example.text)).status


@pytest.mark.parametrize("tests", FORMATS, ids=repr)
def test_every_format_brings_examples_that_hold(tests: TestFormat) -> None:
    verifier = CodeVerifier(tests=tests)
    examples = verifier.examples()
    assert [example.status for example in examples] == [Status.CORRECT, Status.INCORRECT, Status.NO_ANSWER]
    for example in examples:
        assert verifier.reference_fields() <= example.reference.keys()
        assert (
            verifier.score(
                dataclasses.replace(prompt_with(""), reference=example.reference), completion_of(example.text)
            ).status
            is example.status
        )


@pytest.mark.parametrize(
    ("programs", "number"),
    [(WholeText(), 3), (WholeText(after_think=True), 3), (FencedBlock(after_think=True), 3), (Continuation(), 1)],
)
def test_in_the_form_that_is_read(programs: ProgramSource, number: int) -> None:
    verifier = CodeVerifier(programs=programs)
    assert len(verifier.examples()) == number
    for example in verifier.examples():
        assert (
            verifier.score(
                dataclasses.replace(prompt_with(""), reference=example.reference), completion_of(example.text)
            ).status
            is example.status
        )
