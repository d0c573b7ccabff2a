from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta_lightning.errors import ConfigError, RunError
from delta_lightning.types import Prompt, Status
from delta_lightning.verifiers.pool import VerifierPool
from delta_lightning.verifiers.remote import service as module
from delta_lightning.verifiers.remote.remote_verifier import RemoteVerifier
from delta_lightning.verifiers.remote.service import Service
from support.judge_server import JudgeServer, serving
from support.verdicts import ask, completion_of, prompt_with


@pytest.fixture(autouse=True)
def _fresh() -> None:
    module._client.cache_clear()


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    def grade(body: Any) -> Any:
        same = body["completion"] == body["reference"]["answer"]
        return {"status": "correct" if same else "incorrect", "reward": float(same), "reason": "compared"}

    with serving(grade) as running:
        yield running


def quick(url: str, **changes: Any) -> RemoteVerifier:
    limits = {"read_seconds": 5.0, "total_seconds": 10.0, "pause_seconds": 0.02, "attempts": 2}
    service = Service(urls=(url,), **(limits | changes.pop("limits", {})))
    return RemoteVerifier(service=service, **changes)


def answering(answer: Any, **changes: Any) -> Any:
    with serving(lambda body: answer) as server:
        return quick(server.url(), **changes).score(prompt_with("42"), completion_of("41"))


def test_question_and_verdict(server: JudgeServer) -> None:
    judge = quick(server.url())
    right = judge.score(prompt_with("42"), completion_of("42"))
    assert (right.status, right.reward, right.reason) == (Status.CORRECT, 1.0, "compared")
    assert judge.score(prompt_with("42"), completion_of("41")).status is Status.INCORRECT
    assert server.requests[0].body == {"prompt": "What is it?", "completion": "42", "reference": {"answer": "42"}}


def test_names_constants_and_dotted_paths() -> None:
    answer = {"run": {"result": [{"verdict": "Accepted", "points": 0.75, "log": {"line": 3}}]}}
    with serving(lambda body: answer) as server:
        judge = quick(
            server.url(), request={"completion": "code", "reference": "checks"}, constants={"language": "python"},
            fields=("tests", "entry"), status="run.result.0.verdict", reward="run.result.0.points", reason="run.result.0.log",
            statuses={"Accepted": "correct"},
        )  # fmt: skip
        prompt = Prompt(id="p", text="t", token_ids=(), source="s", reference={"tests": [1], "entry": "f", "other": object()})
        verdict = judge.score(prompt, completion_of("x = 1"))
        assert server.requests[0].body == {"code": "x = 1", "checks": {"tests": [1], "entry": "f"}, "language": "python"}
    assert (verdict.status, verdict.reward, verdict.reason) == (Status.CORRECT, 0.75, '{"line": 3}')
    assert judge.reference_fields() == {"tests", "entry"}


@pytest.mark.parametrize(
    ("answer", "status", "reward"),
    [
        ({"reward": 1}, Status.CORRECT, 1.0),
        ({"reward": 0.5}, Status.INCORRECT, 0.5),
        ({"reward": True}, Status.CORRECT, 1.0),
        ({"reward": False}, Status.INCORRECT, 0.0),
        ({"status": "correct"}, Status.CORRECT, 1.0),
        ({"status": "no_answer", "reason": None}, Status.NO_ANSWER, 0.0),
        ({"status": "timeout"}, Status.TIMEOUT, 0.0),
        ({"status": "error", "reward": 1.0}, Status.ERROR, 0.0),
        ({"status": "unavailable", "reason": "warming up"}, Status.UNAVAILABLE, 0.0),
    ],
)
def test_answers(answer: Any, status: Status, reward: float) -> None:
    verdict = answering(answer)
    assert (verdict.status, verdict.reward) == (status, reward)


def test_components_and_measures_arrive() -> None:
    verdict = answering({"reward": 1, "components": {"style": 0.5}, "measures": {"tests": 3}})
    assert (verdict.components, verdict.measures) == ({"style": 0.5}, {"tests": 3.0})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "neither 'status' nor 'reward': {}"),
        ([], "no object"),
        ("correct", "no object"),
        (None, "no object"),
        ({"reward": "1.0"}, '"1.0", no number'),
        ({"reward": 1e308 * 10}, "Infinity"),
        ({"reward": 10**400}, "outside 0 to 1"),
        ({"reward": 1.01}, "1.01, outside 0 to 1"),
        ({"reward": -0.1}, "outside"),
        ({"reward": None, "status": None}, "neither"),
        ({"status": "Correct!"}, "no status"),
        ({"status": 1}, "no status"),
        ({"status": ["correct"]}, "no status"),
        ({"reward": 1, "components": [1]}, "no object of numbers"),
        ({"reward": 1, "measures": {"a": "b"}}, "no number"),
    ],
)
def test_nonsense_is_an_error_and_says_what_came_back(answer: Any, says: str) -> None:
    verdict = answering(answer)
    assert (verdict.status, verdict.reward) == (Status.ERROR, 0.0)
    assert says in verdict.reason


def test_wider_rewards_when_asked_for() -> None:
    assert answering({"reward": -1}, least_reward=-1.0).reward == -1.0


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        *((name, Status.UNAVAILABLE) for name in ("error_500", "half", "drip", "closed", "busy_for_long")),
        *((name, Status.ERROR) for name in ("error_400", "html", "huge", "redirect")),
    ],
)
def test_misbehaviour_through_a_pool(server: JudgeServer, behaviour: str, status: Status) -> None:
    judge = quick(server.url(behaviour), limits={"total_seconds": 2.0} if behaviour == "drip" else {})
    with VerifierPool(judge, workers=2, timeout=judge.limit_seconds() + 1) as pool:
        verdicts = ask(pool, "42", "41", "42")
        assert {verdict.status for verdict in verdicts} == {status}
        assert pool.counts.timeouts == pool.counts.replaced == 0
    assert all(server.url(behaviour) in verdict.reason for verdict in verdicts)


STARTS = (b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/9.9 -1 x", b"HTTP/1.1 429 x", b"HTTP/1.1 503 x", b"HTTP/1.1 302 x", b"")
HEADERS = (
    *(b"Retry-After: " + value for value in (b"-5", b"nan", b"inf", b"Thu, 99 Foo")),
    *(b"Content-Length: " + value for value in (b"-7", b"abc", b"3", b"13")),
    *(b"Transfer-Encoding: chunked", b"Content-Encoding: \xff", b"Location: \x00", b": ", b""),
)
BODIES = (b"-5\r\n", b"zz\r\n", b"f" * 16 + b"\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b'{"reward": 1}', b"\xff\xfe\x00", b"\n")
ANSWERS = st.tuples(
    st.sampled_from(STARTS), st.lists(st.sampled_from(HEADERS), max_size=3),
    st.lists(st.one_of(st.sampled_from(BODIES), st.binary(max_size=20)), max_size=3),
).map(lambda parts: b"\r\n".join([parts[0], *parts[1], b"", b"".join(parts[2])]))  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANSWERS)
def test_any_bytes_get_a_verdict(server: JudgeServer, raw: bytes) -> None:
    module._client.cache_clear()
    server.raw = raw
    verdict = quick(server.url("bytes_as_they_are"), limits={"attempts": 1}).score(prompt_with("42"), completion_of("42"))
    assert verdict.status in (Status.ERROR, Status.UNAVAILABLE) or (verdict.status, verdict.reward) == (Status.CORRECT, 1.0)
    assert verdict.reason.isprintable()


def test_a_judge_that_comes_back_while_a_pool_runs(server: JudgeServer) -> None:
    server.script = ["error_500"] * 6 + ["proper"]
    judge = quick(server.url("scripted"), limits={"attempts": 1, "breaker_failures": 2, "breaker_seconds": 0.5})
    with VerifierPool(judge, workers=1, timeout=10) as pool:
        deadline, last = time.monotonic() + 20, Status.ERROR
        while last is not Status.CORRECT and time.monotonic() < deadline:
            last = ask(pool, "42")[0].status
            assert last in (Status.UNAVAILABLE, Status.CORRECT)
            time.sleep(0.1)
        assert last is Status.CORRECT
        assert len(server.requests) == 7


def test_more_workers_ask_at_once(server: JudgeServer) -> None:
    judge = quick(server.url("slow"))
    with VerifierPool(judge, workers=6, timeout=12) as pool:
        ask(pool, *["42"] * 12)  # all workers have started
        assert all(verdict.status is Status.CORRECT for verdict in ask(pool, *["42"] * 18))
    assert 4 <= server.most_at_once <= 6


def test_check_says_what_answered(server: JudgeServer) -> None:
    lines = quick(server.url()).check()
    assert len(lines) == 1
    assert f"remote judge at {server.url()}: answered the probe in 0." in lines[0]
    assert server.requests[0].body == {"prompt": "", "completion": "", "reference": {"answer": ""}}


@pytest.mark.parametrize(("behaviour", "says"), [("error_404", "HTTP 404"), ("html", "log in"), ("closed", "closed the conn")])
def test_check_refuses_a_service_that_does_not_work(server: JudgeServer, behaviour: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        quick(server.url(behaviour)).check()
    assert server.url(behaviour) in str(raised.value)
    assert len(server.requests) == 1


def test_check_refuses_an_answer_that_is_no_verdict(server: JudgeServer) -> None:
    with pytest.raises(ConfigError, match="is no status"):
        quick(server.url(), reward="nothing", status="reason").check()


def test_a_missing_key_stops_the_start(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    judge = quick(server.url(), limits={"key_variable": "NO_SUCH_KEY"})
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        judge.check()
    with VerifierPool(judge, workers=1, timeout=5) as pool, pytest.raises(RunError, match="NO_SUCH_KEY"):
        ask(pool, "42")


def test_references() -> None:
    judge = quick("http://judge/", fields=("answer",))
    assert judge.refuse_reference({"answer": "42", "other": object()}) is None
    assert "no JSON" in str(judge.refuse_reference({"answer": object()}))
    assert "no JSON" in str(judge.refuse_reference({"answer": float("nan")}))
    assert "'answer'" in str(judge.refuse_reference({}))
    assert judge.score(prompt_with(object()), completion_of("x")).status is Status.ERROR


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"request": {"prompt": "p"}}, "completion"),
        ({"request": {"completion": "c", "answer": "a"}}, "completion"),
        ({"constants": {"prompt": "x"}}, "other names"),
        ({"statuses": {"Accepted": "right"}}, "statuses"),
        ({"least_reward": 2.0}, "least_reward"),
    ],
)
def test_refusals(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        quick("http://judge/", **changes)
