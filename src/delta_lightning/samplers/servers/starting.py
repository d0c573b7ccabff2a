"""Servers that this process starts, until they answer."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from delta_lightning.errors import RunError
from delta_lightning.interfaces import SamplerContext
from delta_lightning.samplers.servers.client import ServerError
from delta_lightning.samplers.servers.launch import start_servers
from delta_lightning.samplers.servers.server import Handle, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from delta_lightning.samplers.vllm_server import VLLMServerSampler

PAUSE = 0.25  # seconds between looks


def started(options: VLLMServerSampler, context: SamplerContext) -> list[Handle]:
    """`options.start` servers that answer. Raises `RunError`, with what the server wrote last, if one does not."""
    begun = time.monotonic()
    handles: list[Handle] = list(start_servers(options, context.model, options.start))
    with ExitStack() as undo:
        for handle in handles:
            undo.callback(handle.stop)
        for index, handle in enumerate(handles):
            waiting = partial(context.progress, "starting vLLM servers", index, len(handles))
            _wait(options, handle, begun + options.start_seconds, waiting)
            context.say(f"vLLM server {handle.url} answers after {time.monotonic() - begun:.0f} s")
        undo.pop_all()
    return handles


def _wait(options: VLLMServerSampler, handle: Handle, until: float, waiting: Callable[[], None]) -> None:
    server = Server(options.client(handle.url), slots=1, patience=options.patience(), handle=handle)
    while True:
        waiting()
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
