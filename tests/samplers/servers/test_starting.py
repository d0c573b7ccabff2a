"""Servers that a run starts: what people see meanwhile, and that none is left behind when it comes to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from delta_lightning.errors import RunError
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.samplers.servers import starting
from support.sampling import context
from support.weight_server import WeightServer, weight_server


@dataclass
class Process:
    """A server's process, as far as the trainer sees it."""

    url: str
    code: int | None = None
    stopped: bool = False

    def alive(self) -> bool:
        return self.code is None

    def exit_code(self) -> int | None:
        return self.code

    def log_tail(self) -> str:
        return "INFO loading\nout of memory"

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def loading() -> Iterator[WeightServer]:
    """It refuses to answer for its health so far."""
    with weight_server() as server:
        server.refuse["/health"] = "loading"
        yield server


@pytest.fixture
def pair(loading: WeightServer, monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    made = [Process(loading.client.url) for _ in range(2)]
    monkeypatch.setattr(starting, "start_servers", lambda options, model, count: made[:count])
    return made


def test_people_see_how_many_answer(loading: WeightServer, pair: list[Process]) -> None:
    shown: list[tuple[str, int, int]] = []
    lines: list[str] = []

    def progress(phase: str, done: int, total: int) -> None:
        shown.append((phase, done, total))
        if len(shown) == 3:
            loading.refuse.clear()

    there = context(None, progress=progress, say=lines.append)
    assert starting.started(VLLMServerSampler(start=2), there) == pair
    assert shown == [("starting vLLM servers", 0, 2)] * 3 + [("starting vLLM servers", 1, 2)]
    assert [line.partition(" after ")[0] for line in lines] == [f"vLLM server {pair[0].url} answers"] * 2
    assert not any(one.stopped for one in pair)


def test_a_run_that_is_interrupted_meanwhile_leaves_none(pair: list[Process]) -> None:
    def progress(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        starting.started(VLLMServerSampler(start=2), context(None, progress=progress))
    assert all(one.stopped for one in pair)


def test_one_that_ends_or_never_answers_is_named_with_its_log(pair: list[Process]) -> None:
    with pytest.raises(RunError, match=rf"{pair[0].url} did not answer within 0.5 s \(HTTP 500.*\n.*loading\nout of memory"):
        starting.started(VLLMServerSampler(start=1, start_seconds=0.5), context(None))
    pair[0].code = 137
    with pytest.raises(RunError, match=r"did not start: its process ended with exit code 137; its log ends:\n.*\nout of"):
        starting.started(VLLMServerSampler(start=1), context(None))
    assert pair[0].stopped
