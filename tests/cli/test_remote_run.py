"""A whole run whose rewards come from a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import Invoke
from support.judge_server import serving


def flags(url: str) -> list[str]:
    return [
        "--model.verifier=RemoteVerifier", f"--model.verifier.service.urls=[{url}]", "--model.verifier.service.total_seconds=2",
        "--model.verifier.service.attempts=1", "--model.verdicts.workers=2",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_trains_on_the_rewards_of_a_service_and_stops_when_it_goes_away(invoke: Invoke, tmp_path: Path) -> None:
    with serving(lambda body: {"reward": float(len(body["completion"]) % 2), "measures": {"length": 1.0}}) as server:
        done = invoke(*flags(server.url()))
        assert done.code == 0, done.err
        assert f"remote judge at {server.url()}: answered the probe" in done.err
        assert len(server.requests) >= 1 + 4 + 8 + 4  # the probe, and answers held out, sampled, held out
        gone = server.url("scripted")
        server.script = ["proper"] * (len(server.requests) + 1) + ["error_503"]  # well when asked at start, then away
        done = invoke(*flags(gone), f"--run_dir={tmp_path}/other")
        assert done.code == 1
        assert "could not reach its service for" in done.err
        assert "HTTP 503" in done.err


def test_a_limit_below_the_services_own_and_a_service_that_is_away_are_refused_at_start(
    invoke: Invoke, loads: list[str]
) -> None:
    with serving() as server:
        done = invoke(*flags(server.url()), "--model.verdicts.timeout_seconds=2.5")
        assert done.code == 2
        assert "wanted at least 3 seconds" in done.err
        done = invoke(*flags(server.url("error_503")))
        assert done.code == 2
        assert f"remote judge at {server.url('error_503')}: wanted a usable answer, got HTTP 503" in done.err
    assert loads == []
