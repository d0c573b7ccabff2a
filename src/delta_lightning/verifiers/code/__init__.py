"""Code: the parts that a config can name."""

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
from delta_lightning.verifiers.code.verifier import CodeVerifier

__all__ = [
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
