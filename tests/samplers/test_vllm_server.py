"""Options of the sampler on servers; the sampling itself is tested in `servers/test_session.py`."""

from __future__ import annotations

from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.samplers import RecordingSampler, VLLMServerSampler

URL = "http://127.0.0.1:8000"

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "either servers, or start"),
    "both": ({"servers": [URL], "start": 1}, "either servers, or start"),
    "no scheme": ({"servers": ["localhost:8000"]}, "addresses like http://host:8000"),
    "another scheme": ({"servers": ["ftp://a:1"]}, "addresses like http://host:8000"),
    "no port number": ({"servers": ["http://a:x"]}, "addresses like http://host:8000"),
    "a query": ({"servers": [f"{URL}/?a=b"]}, "addresses like http://host:8000"),
    "a password": ({"servers": ["http://me:geheim@a:1"]}, "without a name or password"),
    "twice": ({"servers": [URL, URL]}, "each address once"),
    "negative": ({"start": -1}, "either servers, or start"),
    "silence": ({"start": 1, "silence_seconds": 0.0}, "silence_seconds: wanted more than 0"),
    "share": ({"start": 1, "memory_share": 1.0}, "a share in"),
    "sequences": ({"start": 1, "max_sequences": 0}, "at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_work_are_refused(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as caught:
        VLLMServerSampler(**options)
    assert "geheim" not in str(caught.value)


def test_it_can_sample_while_the_model_trains(tmp_path: Any) -> None:
    sampler = VLLMServerSampler(servers=URL)
    assert sampler.servers == (URL,) and sampler.own_process()
    assert RecordingSampler(path=str(tmp_path / "tape"), sampler=sampler).own_process()


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = VLLMServerSampler(servers=[URL], key_variable="SOME_KEY")
    with pytest.raises(ConfigError, match="an API key in the environment variable SOME_KEY"):
        sampler.check()
    monkeypatch.setenv("SOME_KEY", " geheim ")
    assert sampler.key() == "geheim" and "geheim" not in repr(sampler)


def test_servers_elsewhere_need_an_address_of_this_machine() -> None:
    with pytest.raises(ConfigError, match=r"model\.sampler\.transfer\.address: wanted an address at which the server on 203"):
        VLLMServerSampler(servers=["http://203.0.113.7:8000"]).check()


def test_starting_needs_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delta_lightning.samplers.vllm_version.installed", lambda: None)
    with pytest.raises(ConfigError, match="not installed"):
        VLLMServerSampler(start=1).check()
