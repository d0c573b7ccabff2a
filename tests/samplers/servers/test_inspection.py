"""What cannot serve a run is refused before anything loads, with what answered instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.samplers.servers.client import Client
from delta_lightning.samplers.servers.inspection import inspect
from support.generate_server import DEFAULTS, Running, nursery
from support.judge_server import serving
from support.models import NumberTokenizer, tiny_model

BACKEND = "delta_lightning_http"


@pytest.fixture(scope="module")
def lasting() -> Iterator[Running]:
    with nursery() as serve:
        yield serve(tiny_model(), NumberTokenizer())


@pytest.fixture
def server(lasting: Running) -> Iterator[Running]:
    yield lasting
    lasting.set(**DEFAULTS)


def client(url: str) -> Client:
    return Client(url, timeout=5.0)


def test_a_server_says_what_it_is(server: Running) -> None:
    facts = inspect(client(server.url), BACKEND)
    assert (facts.version, facts.dtype, facts.vocabulary, facts.context, facts.max_sequences) == (
        "0.32.0",
        "float32",
        64,
        256,
        4,
    )
    assert facts.shape["num_hidden_layers"] == 2
    lines = VLLMServerSampler(servers=server.url).check()
    assert lines == [f"sampler: vLLM 0.32.0 at {server.url}, float32, 4 sequences at a time"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "not vllm": ({"fault": "not vllm"}, "a vLLM server, got something else, which answered .*I am a web shop"),
    "older": ({"version": "0.31.2"}, r"vLLM 0\.32\.\*, the tested versions, got vLLM 0\.31\.2"),
    "newer": ({"version": "0.33.0+cpu"}, r"vLLM 0\.32\.\*, the tested versions, got vLLM 0\.33\.0\+cpu"),
    "no development mode": ({"dev_mode": False}, "VLLM_SERVER_DEV_MODE=1"),
    "no plug-in": ({"plugin": False}, "with this package's plug-in, got HTTP 404"),
    "logprobs mode": ({"logprobs_mode": "raw_logprobs"}, "--logprobs-mode=processed_logprobs, got raw_logprobs"),
    "asynchronous": ({"async_scheduling": True}, "--no-async-scheduling, got asynchronous scheduling"),
    "no cuts": ({"cuts": False}, "with this package's logits processor"),
    "another transfer": (
        {"backend": "delta_lightning_nccl"},
        "receives weights by delta_lightning_http, got delta_lightning_nccl",
    ),
    "no counters": ({"counts": False}, "no vllm:generation_tokens_total there: start it without --disable-log-stats"),
    "another plug-in": ({"max_sequences": None}, "of the same version, got one that says"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_serve_is_refused_by_name(server: Running, name: str) -> None:
    settings, message = REFUSED[name]
    server.set(**settings)
    with pytest.raises(ConfigError, match=message) as caught:
        VLLMServerSampler(servers=[server.url]).check()
    assert server.url in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("html", "a vLLM server, got something else, which answered no JSON .*Please log in"),
        ("error_404", "a vLLM server, got something else, which answered HTTP 404"),
        ("not_http", "a vLLM server, got something else, which answered no HTTP"),
        ("closed", "a running vLLM server, got closed the connection without an answer"),
    ],
)
def test_other_services_are_told_apart_from_servers_that_are_away(name: str, message: str) -> None:
    with serving() as other, pytest.raises(ConfigError, match=message):
        inspect(_Posting(other.url(name), timeout=5.0), BACKEND)


class _Posting(Client):
    """The odd server reads bodies only."""

    def get(self, path: str, timeout: float | None = None) -> Any:
        return self.post(path, {}, timeout)
