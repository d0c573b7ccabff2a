"""Shapes in which data sets hold their tests."""

from delta_lightning.verifiers.code.formats.apps import Apps
from delta_lightning.verifiers.code.formats.eval_plus import EvalPlus
from delta_lightning.verifiers.code.formats.human_eval import HumanEval
from delta_lightning.verifiers.code.formats.live_code_bench import LiveCodeBench
from delta_lightning.verifiers.code.formats.mbpp import Mbpp
from delta_lightning.verifiers.code.formats.stdin_stdout import StdinStdout
from delta_lightning.verifiers.code.formats.test_format import TestFormat
from delta_lightning.verifiers.code.formats.test_script import TestScript

__all__ = ["Apps", "EvalPlus", "HumanEval", "LiveCodeBench", "Mbpp", "StdinStdout", "TestFormat", "TestScript"]
