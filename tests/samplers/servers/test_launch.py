"""What servers are started with, and the processes that run them. Real servers: tests/samplers/test_vllm_server.py."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.models.backbone import LoadContext
from delta_lightning.models.tiny import Tiny
from delta_lightning.samplers.servers import launch
from delta_lightning.samplers.servers.launch import (
    ServerProcess,
    serve_command,
    serve_environment,
    server_gpus,
    start_servers,
    write_config,
)  # fmt: skip
from delta_lightning.samplers.servers.transfers import HTTPTransfer
from support.weight_server import until


def options(**changes: Any) -> SimpleNamespace:
    fields = {
        "dtype": "auto", "context": 0, "max_sequences": 64, "prefix_caching": True, "eager": True, "cache_gib": 0.25,
        "memory_share": 0.9, "tensor_parallel": 1, "transfer": HTTPTransfer(),
    }  # fmt: skip
    return SimpleNamespace(**(fields | changes))


def model(**shape: Any) -> Any:
    return Tiny(**({"hidden_size": 64, "heads": 2, "kv_heads": 1, "layers": 1, "context": 96} | shape)).load(LoadContext())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_config(model(), tmp_path)
    return tmp_path


def test_only_the_config_is_written(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} <= {"config.json", "generation_config.json"}
    text = (folder / "config.json").read_text()
    assert '"Qwen3ForCausalLM"' in text and '"dtype": "float32"' in text


def test_the_command_takes_what_the_options_leave_open_from_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "on_cpu", lambda: True)
    command = serve_command(folder, options(), 8123, "delta_lightning_http")
    assert command[:3] == [sys.executable, "-P", "-m"], "the folder that a run is started in shadows no module"
    assert {
        "--dtype=float32", "--max-model-len=96", "--port=8123", "--host=127.0.0.1", "--enforce-eager",
        "--enable-prefix-caching", "--logprobs-mode=processed_logprobs", "--no-async-scheduling",
    } <= set(command)  # fmt: skip
    assert command[command.index("--weight-transfer-config") + 1] == '{"backend": "delta_lightning_http"}'
    assert f"--kv-cache-memory-bytes={2**28}" in command


def test_the_command_follows_the_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "on_cpu", lambda: False)
    given = options(dtype="bfloat16", context=50, prefix_caching=False, eager=False, tensor_parallel=4, memory_share=0.8)
    command = serve_command(folder, given, 1, "x", host="0.0.0.0")
    assert {"--dtype=bfloat16", "--max-model-len=50", "--no-enable-prefix-caching", "--tensor-parallel-size=4",
            "--gpu-memory-utilization=0.8", "--host=0.0.0.0"} <= set(command)  # fmt: skip
    assert "--enforce-eager" not in command and not [word for word in command if "kv-cache-memory" in word]


def test_a_server_is_no_rank_of_the_trainer() -> None:
    trainer = {"PATH": "/bin", "RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x",
               "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "INFO"}  # fmt: skip
    made = serve_environment(trainer)
    assert made["PATH"] == "/bin" and made["VLLM_SERVER_DEV_MODE"] == "1"
    assert made["VLLM_LOGGING_LEVEL"] == "INFO", "what the user has set stays"
    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "VLLM_ENABLE_V1_MULTIPROCESSING"} & set(made)
    assert "CUDA_VISIBLE_DEVICES" not in made and serve_environment({}, "2,3")["CUDA_VISIBLE_DEVICES"] == "2,3"


@pytest.mark.parametrize(("given", "made"), [("a,b", "a,b,delta_lightning"), ("delta_lightning", "delta_lightning"),
                                             ("", "delta_lightning")])  # fmt: skip
def test_a_choice_of_plugins_keeps_ours(given: str, made: str) -> None:
    assert serve_environment({"VLLM_PLUGINS": given})["VLLM_PLUGINS"] == made
    assert "VLLM_PLUGINS" not in serve_environment({})


def test_servers_take_the_last_gpus_each_its_own() -> None:
    shown = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
    assert server_gpus(2, 1, shown) == ["6", "7"]
    assert server_gpus(2, 2, shown) == ["4,5", "6,7"]
    with pytest.raises(ConfigError, match="wanted 10 GPUs for 5 servers of 2, got 8"):
        server_gpus(5, 2, shown)


def test_heads_without_a_kernel_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "on_cpu", lambda: True)
    with pytest.raises(ConfigError, match="width 8"):
        start_servers(options(), model(hidden_size=32, heads=4, kv_heads=2), 1)


def process(code: str) -> ServerProcess:
    folder = tempfile.TemporaryDirectory(prefix="delta_lightning_test_")
    return ServerProcess([sys.executable, "-c", code], os.environ, "http://127.0.0.1:1", folder)


def test_a_server_s_end_is_told_with_its_last_lines() -> None:
    server = process("import sys; print('\\n'.join(f'line {i}' for i in range(99))); sys.stdout.flush(); sys.exit('no GPU')")
    until(lambda: not server.alive())
    assert server.exit_code() == 1
    lines = server.log_tail().splitlines()
    assert lines[-1] == "no GPU" and lines[-2] == "line 98" and len(lines) == launch.LINES
    server.stop()
    assert server.log_tail().splitlines() == lines, "it is wanted after the end too"
    server.stop()


def test_a_server_that_is_stopped_leaves_nothing() -> None:
    server = process("import time; time.sleep(600)")
    place = Path(server._folder.name)
    assert server.alive() and server.exit_code() is None and place.is_dir() and server.url == "http://127.0.0.1:1"
    server.stop()
    assert not server.alive() and not place.exists()
