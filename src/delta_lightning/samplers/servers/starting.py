"""Servers that this process starts, until they answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from delta_lightning.errors import RunError
from delta_lightning.samplers.servers.client import ServerError
from delta_lightning.samplers.servers.launch import start_servers
from delta_lightning.samplers.servers.server import Handle, Server

if TYPE_CHECKING:
    from delta_lightning.samplers.vllm_server import VLLMServerSampler

PAUSE = 0.25  # seconds between looks


def started(options: VLLMServerSampler, model: Any, tokenizer: Any) -> list[Handle]:
    """`options.start` servers that answer. Raises `RunError`, with what the server wrote last, if one does not."""
    handles: list[Handle] = list(start_servers(options, model, tokenizer, options.start))
    try:
        until = time.monotonic() + options.start_seconds
        for handle in handles:
            _wait(options, handle, until)
    except BaseException:
        for handle in handles:
            handle.stop()
        raise
    return handles


def _wait(options: VLLMServerSampler, handle: Handle, until: float) -> None:
    server = Server(options.client(handle.url), slots=1, patience=options.patience(), handle=handle)
    while True:
        ended = server.ended()
        if ended is not None:
            raise RunError(f"the vLLM server {handle.url} did not start: {ended}")
        try:
            server.client.get("/health")
            return
        except ServerError as error:
            if time.monotonic() > until:
                raise RunError(
                    f"the vLLM server {handle.url} did not answer within {options.start_seconds:g} s ({error.reason}); "
                    f"its log ends:\n{handle.log_tail()}"
                ) from error
        time.sleep(PAUSE)
