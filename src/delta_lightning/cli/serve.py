"""`delta-lightning serve`: a vLLM server for the model of a run's config, for `VLLMServerSampler` on any machine."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from jsonargparse import ArgumentParser

from delta_lightning.cli.command import prepare, run_command, say, say_dropped
from delta_lightning.cli.config_files import ShortErrors
from delta_lightning.cli.config_parts import own_parts
from delta_lightning.errors import ConfigError, RunError, require
from delta_lightning.interfaces import Sampler
from delta_lightning.models.backbone import Backbone
from delta_lightning.samplers import VLLMServerSampler
from delta_lightning.samplers.servers import guardian
from delta_lightning.samplers.servers.client import Client, ServerError
from delta_lightning.samplers.servers.launch import serve_command, serve_environment, write_config
from delta_lightning.samplers.vllm_version import check_version

DESCRIPTION = """\
Runs a vLLM server for the model of a run's config until it is interrupted. It starts with random weights: the run sends its own
(model.sampler=VLLMServerSampler with this server's address in servers). Give it the config of the run: only model.backbone and
model.sampler are read, for the architecture, the engine's options and the way of weights. CUDA_VISIBLE_DEVICES says which GPUs
it takes. It trusts everyone who can reach its port."""
_OWN = ("backbone", "sampler")
_EVERYWHERE = ("0.0.0.0", "::")


def run(args: Sequence[str]) -> int:
    """Run the command with these arguments; every error made on purpose ends in one message and an exit code."""
    return run_command(lambda: _parse_and_serve(args), interrupted="")


def _parse_and_serve(args: Sequence[str]) -> int:
    prepare(args, ("models", "samplers"))
    settings = _parser().parse_args(own_parts(args, _OWN))
    say_dropped()
    return _serve(_parser().instantiate_classes(settings))


def _parser() -> ArgumentParser:
    ShortErrors.roots = {"backbone": Backbone, "sampler": Sampler | None}
    parser = ShortErrors(prog="delta-lightning serve", description=DESCRIPTION)
    parser.add_argument("--config", action="config", help="Config of the run, later ones win.")
    parser.add_argument("--port", type=int, default=8000, help="Port to listen on.")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="Address to listen on; 0.0.0.0 is every network.")
    parser.add_subclass_arguments(Backbone, "backbone", required=False, help="The model, for example Pretrained.")
    parser.add_subclass_arguments(Sampler, "sampler", required=False, help="VLLMServerSampler, for its engine's options.")
    return parser


def _serve(settings: Any) -> int:
    options, backbone = _options(settings.get("sampler")), settings.get("backbone")
    require(0 < settings.port < 65536, "--port", wanted="a port", got=settings.port, remedy="8000 is usual.")
    if backbone is None:
        raise ConfigError("--config", wanted="a config with model.backbone", got="none",
                          remedy="Give the run's config, or --backbone=Pretrained --backbone.path=...")  # fmt: skip
    say(check_version("delta-lightning serve"))
    options.transfer.check()
    with tempfile.TemporaryDirectory(prefix="delta_lightning_serve_") as place:
        folder = Path(place)
        write_config(backbone.meta(), folder, getattr(backbone, "dtype", None))
        command = serve_command(folder, options, settings.port, options.transfer.backend(), settings.host)
        say(shlex.join(command))
        return _run(command, "127.0.0.1" if settings.host in _EVERYWHERE else settings.host, settings.port)


def _options(sampler: Any) -> VLLMServerSampler:
    if sampler is None:
        return VLLMServerSampler(start=1)
    if not isinstance(sampler, VLLMServerSampler):
        raise ConfigError("model.sampler", wanted="VLLMServerSampler", got=type(sampler).__name__,
                          remedy="Add --model.sampler=VLLMServerSampler --model.sampler.start=1.")  # fmt: skip
    return sampler


def _run(command: Sequence[str], host: str, port: int) -> int:
    """The command in the foreground; SIGTERM and Ctrl-C end it. Raises `RunError` where it ends by itself."""
    asked: list[int] = []
    begun = time.monotonic()
    guarded = [sys.executable, "-I", guardian.__file__, str(os.getpid()), *command]
    process = subprocess.Popen(guarded, env=serve_environment(os.environ))

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        client = Client(f"http://{f'[{host}]' if ':' in host else host}:{port}", timeout=5.0)
        ready = False
        while process.poll() is None:
            if not ready and _answers(client):
                ready = True
                say(f"ready after {time.monotonic() - begun:.0f} s: {client.url}")
            time.sleep(0.5)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        return 128 + asked[0]
    raise RunError(f"the vLLM server ended with exit code {process.returncode}; what it wrote stands above")


def _answers(client: Client) -> bool:
    try:
        client.get("/health")
    except ServerError:
        return False
    return True
