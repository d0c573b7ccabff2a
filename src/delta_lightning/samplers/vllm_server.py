"""Sampling by vLLM servers, on this machine or on others, while the trainer keeps its process to itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import Sampler, SamplerContext, SamplerSession
from delta_lightning.samplers.servers.client import Client
from delta_lightning.samplers.servers.inspection import inspect
from delta_lightning.samplers.servers.server import Patience
from delta_lightning.samplers.servers.transfers import HTTPTransfer, WeightTransfer
from delta_lightning.samplers.vllm_version import check_version

WHAT = "VLLMServerSampler"


@dataclass(frozen=True, kw_only=True)
class VLLMServerSampler(Sampler):
    """Samples with one or more vLLM servers: `servers` that are running, or `start` processes on this machine.

    Token ids go out and come in. Each completion is a request with its own seed, keyed by (seed, prompt id, sample index), so
    one that is asked again of another server is the same up to rounding. Requests go to the least busy server. One that is lost
    or hangs is set aside, its requests go to the others, and it is taken in again at the next update of the weights if it is
    well; when none is left the run ends with each one's reason. A server belongs to one run.

    Args:
        servers: addresses of running servers, http://host:port, started with `delta-lightning serve`.
        start: how many to start instead; they end with this process.
        transfer: how weights get there.
        key_variable: name of the environment variable with the servers' API key; empty: none.
        dtype: of a started engine's weights and arithmetic; "auto" takes the training model's. context: its longest sequence,
            0 takes the model's own. max_sequences: completions that it decodes at a time. prefix_caching: share the cache of
            equal beginnings. eager: neither compiled nor CUDA graphs. cache_gib: key-value cache on CPUs, GiB.
        memory_share: share of a GPU that a started server may fill. tensor_parallel: GPUs of a started server.
        request_seconds: longest wait for one completion. silence_seconds: with requests and without a token, a server hangs.
        answer_seconds: longest wait for an answer about the server itself. update_seconds: for a step of a weight update, and
            for the probe. start_seconds: until a started server answers.
        retries: failures in a row that a server is forgiven while it says that it is healthy.
    """

    servers: Sequence[str] = ()
    start: int = 0
    transfer: WeightTransfer = field(default_factory=HTTPTransfer)
    key_variable: str = ""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    context: int = 0
    max_sequences: int = 256
    prefix_caching: bool = True
    eager: bool = True
    cache_gib: float = 1.0
    memory_share: float = 0.9
    tensor_parallel: int = 1
    request_seconds: float = 3600.0
    silence_seconds: float = 120.0
    answer_seconds: float = 10.0
    update_seconds: float = 600.0
    start_seconds: float = 900.0
    retries: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "servers", (self.servers,) if isinstance(self.servers, str) else tuple(self.servers))
        for url in self.servers:
            _check_url(url)
        require(len(set(self.servers)) == len(self.servers), f"{WHAT}.servers", wanted="each address once", got=self.servers,
                remedy="Remove one.")  # fmt: skip
        require(bool(self.servers) != (self.start > 0), f"{WHAT}.servers", wanted="either servers, or start",
                got=f"{len(self.servers)} addresses and start={self.start}",
                remedy="Name running servers, or say how many to start.")  # fmt: skip
        for name, least in (("start", 0), ("context", 0), ("max_sequences", 1), ("tensor_parallel", 1), ("retries", 0)):
            value = getattr(self, name)
            require(value >= least, f"{WHAT}.{name}", wanted=f"at least {least}", got=value, remedy="Raise it.")
        for name in (
            "cache_gib", "request_seconds", "silence_seconds", "answer_seconds", "update_seconds", "start_seconds",
        ):  # fmt: skip
            value = getattr(self, name)
            require(value > 0, f"{WHAT}.{name}", wanted="more than 0", got=value, remedy="Leave it out for the default.")
        require(0 < self.memory_share < 1, f"{WHAT}.memory_share", wanted="a share in (0, 1)", got=self.memory_share,
                remedy="0.9 is usual where nothing else is on the GPU.")  # fmt: skip

    def check(self) -> Sequence[str]:
        """Asks every running server what it is. Raises `ConfigError` for one that cannot serve a run, or without a vLLM."""
        self.transfer.check()
        self.transfer.check_reach([urlsplit(url).hostname or "" for url in self.servers])
        lines = []
        if self.start:
            lines.append(check_version(f"model.sampler={WHAT}"))
        self.key()
        for url in self.servers:
            facts = inspect(self.client(url), self.transfer.backend())
            lines.append(f"sampler: vLLM {facts.version} at {url}, {facts.dtype}, {facts.max_sequences} sequences at a time")
        return lines

    def own_process(self) -> bool:
        """True: a model can be trained while the servers sample."""
        return True

    def open(self, context: SamplerContext) -> SamplerSession:
        """Start or find the servers, and send them the weights. Collective. Raises `ConfigError` or `RunError`."""
        from delta_lightning.samplers.servers.session import ServerSession

        return ServerSession(self, context)

    def client(self, url: str) -> Client:
        """What asks a server."""
        return Client(url, timeout=self.answer_seconds, api_key=self.key() or None)

    def patience(self) -> Patience:
        """How long servers are waited for."""
        return Patience(request=self.request_seconds, silence=self.silence_seconds, answer=self.answer_seconds,
                        retries=self.retries)  # fmt: skip

    def key(self) -> str:
        """The API key, or nothing. Raises `ConfigError` where the variable is not set."""
        if not self.key_variable:
            return ""
        key = os.environ.get(self.key_variable, "").strip()
        require(bool(key) and key.isascii() and key.isprintable(), f"{WHAT}.key_variable",
                wanted=f"an API key in the environment variable {self.key_variable}",
                got="none, or characters that no header can hold", remedy="Export it before the run.")  # fmt: skip
        return key


def _check_url(url: str) -> None:
    """Raises `ConfigError` for an address that cannot be asked, or that holds a secret."""
    what, wanted, remedy = f"{WHAT}.servers", "addresses like http://host:8000", "Write the server's scheme, host and port."
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ConfigError(what, wanted=wanted, got=repr(url), remedy=remedy) from None
    usable = usable and url.isascii() and url.isprintable() and " " not in url and not parts.query and not parts.fragment
    require(usable, what, wanted=wanted, got=url, remedy=remedy)
    require("@" not in parts.netloc, what, wanted="addresses without a name or password", got=f"...@{parts.hostname}",
            remedy="Put the key into an environment variable and name it in key_variable.")  # fmt: skip
