from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.verifiers.remote import service as module
from delta_lightning.verifiers.remote.exchange import AwayError, NonsenseError
from delta_lightning.verifiers.remote.service import Service
from support.judge_server import JudgeServer, serving

QUICK = {"read_seconds": 5.0, "connect_seconds": 2.0, "total_seconds": 15.0, "pause_seconds": 0.05, "attempts": 2}
TIGHT = {"read_seconds": 0.6, "total_seconds": 1.5}


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh() -> None:
    module._client.cache_clear()  # breakers live as long as the process


def quick(*urls: str, **changes: Any) -> Service:
    return Service(urls=urls, **(QUICK | changes))


@pytest.mark.parametrize("behaviour", ["proper", "chunked", "old", "plain_text", "slow"])
def test_proper_answers(server: JudgeServer, behaviour: str) -> None:
    assert quick(server.url(behaviour)).ask({"text": "ä\ud800"}) == {"status": "correct", "reward": 1.0, "reason": "fine"}
    assert server.requests[0].body == {"text": "ä\ud800"}
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("behaviour", "says", "requests"),
    [
        ("error_500", "HTTP 500: the judge fell over", 2),
        ("error_503", "HTTP 503", 2),
        ("closed", "without an answer", 2),
        ("reset", "reset", 2),
        ("half", "in the middle of its answer", 2),
        ("half_chunk", "in the middle of its answer", 2),
        ("silent", "silent for 0.6 s|total time", 2),
        ("drip", "total time", 1),
        ("drip_headers", "total time", 1),
        ("interim", "total time", 1),
        ("error_500_drip", "HTTP 500", 1),
        ("busy_nonsense", "HTTP 429", 2),
    ],
)
def test_what_counts_as_away(server: JudgeServer, behaviour: str, says: str, requests: int) -> None:
    limits = TIGHT if behaviour in ("silent", "drip", "drip_headers", "interim") else {}
    started = time.monotonic()
    with pytest.raises(AwayError, match=says) as raised:
        quick(server.url(behaviour), **limits).ask({})
    assert not limits or time.monotonic() - started < 1.5 + 1.5  # the total time and room for a busy machine
    assert len(server.requests) >= requests
    assert server.url(behaviour) in str(raised.value)


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("error_400", "HTTP 400: .*no field named text"),
        ("error_404", "HTTP 404: <html>not here"),
        ("half_json", 'JSON.*{"status": "cor'),
        ("html", "JSON.*Please log in"),
        ("binary", "JSON"),
        ("empty", "JSON"),
        ("nested", "RecursionError"),
        ("not_a_number", "NaN"),
        ("endless_number", "no JSON"),
        ("huge", "more than 1048576 bytes"),
        ("huge_announced", "more than 1048576 bytes"),
        ("huge_headers", "did not answer in HTTP"),
        ("gzip_bomb", "compressed by gzip"),
        ("redirect", "redirect to http://127.0.0.1"),
        ("not_http", "did not answer in HTTP.*mail.example.org"),
    ],
)
def test_what_is_nonsense_and_not_asked_again(server: JudgeServer, behaviour: str, says: str) -> None:
    with pytest.raises(NonsenseError, match=says):
        quick(server.url(behaviour)).ask({})
    assert len(server.requests) == 1


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(AwayError, match="refused"):
        quick(f"http://127.0.0.1:{port}/").ask({})
    with pytest.raises(AwayError, match=r"no address for no-such-host\.invalid"):
        quick("http://no-such-host.invalid/").ask({})


def test_a_name_that_is_not_resolved_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: time.sleep(5))
    started = time.monotonic()
    with pytest.raises(AwayError, match="in time"):
        quick("http://slow-names.example/", attempts=1, connect_seconds=0.5).ask({})
    assert time.monotonic() - started < 3


def test_a_second_attempt_may_succeed(server: JudgeServer) -> None:
    server.script = ["error_500", "closed", "proper"]
    assert quick(server.url("scripted"), attempts=3).ask({})["reward"] == 1.0
    gaps = [after.time - before.time for before, after in zip(server.requests, server.requests[1:], strict=False)]
    assert gaps[0] >= 0.025
    assert gaps[1] >= 0.05  # doubled, at least half of it


@pytest.mark.parametrize(("behaviour", "least"), [("busy", 1.0), ("busy_date", 0.8)])
def test_retry_after_is_honoured(server: JudgeServer, behaviour: str, least: float) -> None:
    server.script = [behaviour, "proper"]
    quick(server.url("scripted")).ask({})
    assert least <= server.requests[1].time - server.requests[0].time < 4


def test_retry_after_beyond_what_is_allowed_leaves_the_address_alone(server: JudgeServer) -> None:
    patient = quick(server.url("busy_for_long"), attempts=4)
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(AwayError, match=r"HTTP 429|failed just now"):
            patient.ask({})
        assert time.monotonic() - started < 1
    assert len(server.requests) == 1


def test_a_pause_that_does_not_fit_is_not_begun(server: JudgeServer) -> None:
    started = time.monotonic()
    with pytest.raises(AwayError, match="1 attempt,"):
        quick(server.url("error_500"), pause_seconds=40.0, longest_pause_seconds=40.0).ask({})
    assert time.monotonic() - started < 5


def test_addresses_are_asked_in_turn_and_the_one_that_is_away_is_passed_over(server: JudgeServer) -> None:
    with serving() as other:
        both = quick(server.url(), other.url())
        for _ in range(6):
            both.ask({})
        assert len(server.requests) == len(other.requests) == 3
        half = quick(server.url("error_500"), other.url(), breaker_failures=2)
        started = time.monotonic()
        assert all(half.ask({})["reward"] == 1.0 for _ in range(20))
        assert time.monotonic() - started < 3
        assert len(server.requests) == 3 + 2  # then its breaker is open


def test_the_breaker(server: JudgeServer) -> None:
    server.script = ["error_500"] * 4 + ["proper"]
    guarded = quick(server.url("scripted"), attempts=1, breaker_failures=3, breaker_seconds=1.6)
    for _ in range(3):
        with pytest.raises(AwayError, match="HTTP 500"):
            guarded.ask({})
    started = time.monotonic()
    for _ in range(50):
        with pytest.raises(AwayError, match="not asked for another"):
            guarded.ask({})
    assert time.monotonic() - started < 1.5
    assert len(server.requests) == 3
    time.sleep(1.7)
    with pytest.raises(AwayError, match="HTTP 500"):  # one attempt decides: it fails
        guarded.ask({})
    with pytest.raises(AwayError, match="not asked"):
        guarded.ask({})
    assert len(server.requests) == 4
    time.sleep(1.7)
    for _ in range(3):  # it succeeds: all is well again
        assert guarded.ask({})["reward"] == 1.0


def test_nonsense_does_not_open_the_breaker(server: JudgeServer) -> None:
    guarded = quick(server.url("error_400"), breaker_failures=1)
    for _ in range(3):
        with pytest.raises(NonsenseError):
            guarded.ask({})


def test_the_key_goes_into_the_header_and_nowhere_else(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    keyed = quick(server.url(), key_variable="JUDGE_KEY")
    keyed.ask({})
    assert server.requests[0].headers["authorization"] == "Bearer sk-very-secret"
    assert "secret" not in repr(keyed)
    with pytest.raises(NonsenseError) as raised:  # a service that repeats what it was sent
        replace(keyed, urls=(server.url("error_401"),)).ask({})
    assert "HTTP 401: bad credentials: Bearer [key]" in str(raised.value)
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match="JUDGE_KEY"):
        quick(server.url("slow"), key_variable="JUDGE_KEY").ask({})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=judge", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        pytest.skip("openssl cannot make a certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


def test_certificates_are_verified(certificate: tuple[Path, ssl.SSLContext]) -> None:
    file, context = certificate
    with JudgeServer(context=context) as server:
        with pytest.raises(NonsenseError, match="certificate is refused"):
            quick(server.url()).ask({})
        assert quick(server.url(), certificate_file=str(file)).ask({})["reward"] == 1.0
        with pytest.raises(NonsenseError, match=r"certificate is refused.*mismatch"):
            quick(server.url().replace("127.0.0.1", "localhost"), certificate_file=str(file)).ask({})
    with serving() as plain, pytest.raises(AwayError):
        quick(plain.url().replace("http:", "https:")).ask({})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"urls": ()}, "at least one"),
        ({"urls": ("judge:8000",)}, "http:// or https://"),
        ({"urls": ("ftp://judge/",)}, "http:// or https://"),
        ({"urls": ("http:///x",)}, "http:// or https://"),
        ({"urls": ("http://judge:99999/",)}, "http:// or https://"),
        ({"urls": ("http://judge/a\r\nX: y",)}, "http:// or https://"),
        ({"urls": ("http://me:secret@judge/",)}, "without a name or password"),
        ({"attempts": 0}, "attempts"),
        ({"total_seconds": 0.0}, "total_seconds"),
        ({"pause_seconds": -1.0}, "pause_seconds"),
    ],
)
def test_refusals(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        Service(**({"urls": ("http://judge/",)} | changes))
    assert "secret" not in str(raised.value)


def test_a_certificate_file_that_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        Service(urls=("https://judge/",), certificate_file="nowhere.pem").tls()


def test_unencrypted_addresses_are_named() -> None:
    assert "the key travel unencrypted to http://judge/" in Service(urls=("http://judge/",), key_variable="K").lines()[0]
    assert Service(urls=("https://judge/", "http://127.0.0.1/")).lines() == []
