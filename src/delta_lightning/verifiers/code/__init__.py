"""Code: the parts that a config can name."""

from pathlib import Path

from delta_lightning.verifiers.code.code_verifier import CodeVerifier
from delta_lightning.verifiers.code.formats import (
    Apps,
    EvalPlus,
    HumanEval,
    LiveCodeBench,
    Mbpp,
    StdinStdout,
    TestFormat,
    TestScript,
)
from delta_lightning.verifiers.code.programs import Continuation, FencedBlock, ProgramSource, WholeText

CODE_EVAL = str(Path(__file__).parent / "code_eval.py")  # what `evaluate.load` takes

__all__ = [
    "CODE_EVAL",
    "Apps",
    "CodeVerifier",
    "Continuation",
    "EvalPlus",
    "FencedBlock",
    "HumanEval",
    "LiveCodeBench",
    "Mbpp",
    "ProgramSource",
    "StdinStdout",
    "TestFormat",
    "TestScript",
    "WholeText",
]
