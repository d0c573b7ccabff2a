"""Parts that have no defaults, or that need a reference of a certain form, made ready for the contract tests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any

from delta_lightning.credit import Compose, Delta
from delta_lightning.data import Arithmetic, ColumnValue, Decontaminate, Mixture, OnDisk, Streamed, Table
from delta_lightning.samplers import RecordedSampler, RecordingSampler, VLLMServerSampler
from delta_lightning.samplers.tape import TapeWriter, tape_path
from delta_lightning.types import Example, Status
from delta_lightning.verifiers.choice import MultipleChoice
from delta_lightning.verifiers.combine.by_source import BySource
from delta_lightning.verifiers.combine.first_that_applies import FirstThatApplies
from delta_lightning.verifiers.combine.gate import Gate
from delta_lightning.verifiers.combine.weighted_sum import WeightedSum
from delta_lightning.verifiers.exact import ExactMatch
from delta_lightning.verifiers.extraction.excerpts import AfterMarker, FirstPlace, LastLine
from delta_lightning.verifiers.extraction.extraction import LastBox
from delta_lightning.verifiers.length import LengthPenalty
from delta_lightning.verifiers.numeric import NumericVerifier
from delta_lightning.verifiers.regex_format import RegexFormat
from delta_lightning.verifiers.remote.chat_judge import ChatJudge
from delta_lightning.verifiers.remote.remote_verifier import RemoteVerifier
from delta_lightning.verifiers.remote.service import Service
from support.judge_server import JudgeServer

BOXED = RegexFormat(pattern=r"(?s).*\\boxed\{.*", match="full")
MAKERS: dict[str, Callable[[], Any]] = {
    "Compose": lambda: Compose(assigners=(Delta(),)),
    "ColumnValue": lambda: ColumnValue(column="topic", keep=("algebra",)),
    "Decontaminate": lambda: Decontaminate(against={"sums": Arithmetic()}),
    "Mixture": lambda: Mixture(sources={"sums": Arithmetic()}),
    "OnDisk": lambda: OnDisk(table=Table()),
    "Streamed": lambda: Streamed(table=Table()),
    "FirstPlace": lambda: FirstPlace(places=(LastBox(), LastLine())),
    "WeightedSum": lambda: WeightedSum(
        members={"answer": NumericVerifier(), "length": LengthPenalty(free=2)}, weights={"length": 0.1}
    ),
    "Gate": lambda: Gate(first=BOXED, then=NumericVerifier()),
    "FirstThatApplies": lambda: FirstThatApplies(
        members={"box": NumericVerifier(), "line": ExactMatch(extraction=AfterMarker())}
    ),
    "RemoteVerifier": lambda: RemoteVerifier(service=_service()),
    "ChatJudge": lambda: ChatJudge(service=_service(), model="judge"),
    "BySource": lambda: BySource(verifiers={"sums": NumericVerifier(), "gpqa": MultipleChoice()}),
    "RecordingSampler": lambda: RecordingSampler(path="a_new_folder"),
    "RecordedSampler": lambda: RecordedSampler(path=_recording()),
    "VLLMServerSampler": lambda: VLLMServerSampler(start=1),
}


@cache
def _service() -> Service:
    """A local server that finds "42" right, for as long as the tests run."""
    server = JudgeServer(answer=_judged)
    return Service(urls=(server.__enter__().url(),), pause_seconds=0.01)


@cache
def _recording() -> str:
    """A folder with an empty recording, left to the system's temporary files."""
    folder = tempfile.mkdtemp()
    TapeWriter(tape_path(folder, 0), {"vocabulary": 8})
    return folder


def _judged(body: Any) -> Any:
    if "messages" in body:
        right = body["messages"][-1]["content"].count("\n42\n") == 2  # the reference and the answer
        return {"choices": [{"message": {"content": f"SCORE: {int(right)}"}, "finish_reason": "stop"}]}
    return {"status": "correct" if body["completion"] == "42" else "incorrect"}


def _numbers(*texts: tuple[str, Status]) -> tuple[Example, ...]:
    return tuple(Example(reference={"answer": "42"}, text=text, status=status) for text, status in texts)


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "RemoteVerifier": _numbers(("42", Status.CORRECT), ("43", Status.INCORRECT)),
    "ChatJudge": _numbers(("42", Status.CORRECT), ("43", Status.INCORRECT), (" ", Status.NO_ANSWER)),
    "WeightedSum": _numbers((r"\boxed{42}", Status.CORRECT), (r"\boxed{43}", Status.INCORRECT)),
    "Gate": _numbers((r"\boxed{42}", Status.CORRECT), ("42", Status.INCORRECT)),
    "FirstThatApplies": _numbers((r"\boxed{42}", Status.CORRECT), ("Answer: 42", Status.CORRECT), ("42", Status.NO_ANSWER)),
}


def made(cls: type) -> Any:
    """An instance: of the defaults where there are some."""
    return MAKERS.get(cls.__name__, cls)()
