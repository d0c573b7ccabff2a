"""Weights over HTTP: the trainer serves each update to all workers of all servers at once, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from delta_lightning.errors import ConfigError, require
from delta_lightning.samplers.servers.client import Client
from delta_lightning.samplers.servers.transfers.listener import Listener, Stream
from delta_lightning.samplers.servers.transfers.sender import Counted, Round
from delta_lightning.samplers.servers.transfers.transfer import (
    Delivered,
    Target,
    TransferSession,
    WeightTransfer,
    check_address,
)
from delta_lightning.samplers.servers.transfers.wire import END, frame
from delta_lightning.samplers.vllm_plugin import HTTP

OTHERS = 8  # a worker waits so many times as long as one server may take, since a server that hangs holds all up once
EVERYWHERE = ("", "0.0.0.0", "::")


@dataclass(frozen=True, kw_only=True)
class HTTPTransfer(WeightTransfer):
    """The first training rank listens, and each worker of each server fetches the update once, in one response.

    Needs nothing but the network. Every update has one-time tokens; a request without one gets nothing. Neither the weights nor
    the tokens are encrypted: use it inside a network that you trust. A few tensors at a time are held beside the model.

    Args:
        host: address to listen on. The default reaches servers on this machine; "0.0.0.0" listens on all networks.
        port: to listen on; 0 takes a free one.
        address: what servers are told to connect to; "" is `host`. Needed where `host` is "0.0.0.0".
    """

    host: str = "127.0.0.1"
    port: int = 0
    address: str = ""

    def __post_init__(self) -> None:
        require(0 <= self.port < 65536, "HTTPTransfer.port", wanted="a port, or 0", got=self.port, remedy="0 takes a free one.")
        require(
            bool(self.address) or self.host not in EVERYWHERE, "HTTPTransfer.address",
            wanted="the address at which servers reach this machine", got=self.address,
            remedy="Set it to this machine's name or address.",
        )  # fmt: skip

    def backend(self) -> str:
        """The receiver of our plug-in."""
        return HTTP

    def check_reach(self, hosts: Sequence[str]) -> None:
        """The default address is this machine's alone. Raises `ConfigError`."""
        check_address("model.sampler.transfer.address", self.address or self.host, hosts)

    def open(self, target: Target) -> TransferSession:
        """Listen. Raises `ConfigError` where the address is taken, or not this machine's."""
        try:
            listener = Listener(self.host, self.port, patience=OTHERS * target.silence)
        except OSError as error:
            raise ConfigError(
                "HTTPTransfer", wanted=f"an address of this machine that is free to listen on: {self.host}:{self.port}",
                got=error.strerror or str(error), remedy="Set host and port.",
            ) from error  # fmt: skip
        return HTTPSession(listener, self.address or self.host, target)


class HTTPSession(TransferSession):
    """See `HTTPTransfer`."""

    def __init__(self, listener: Listener, address: str, target: Target) -> None:
        self._listener, self._target = listener, target
        self._base = f"http://{f'[{address}]' if ':' in address else address}:{listener.port}"

    def send(self, version: int, label: str, weights: Iterable[tuple[str, Tensor]], clients: Sequence[Client]) -> Delivered:
        """See the seam."""
        counted, work = Counted(weights, self._target.dtype), Round(clients, self._target, version, label)
        streams = [Stream(work.workers(index)) for index in range(len(clients))]
        with self._listener.serving(streams):
            work.begin([{"url": self._base, "token": one.token, "silence": OTHERS * self._target.silence} for one in streams])
            for name, value in counted:
                self._put(frame(name, value), streams, work)
            self._put([END], streams, work)
            return work.finish(counted)

    def _put(self, data: Sequence[bytes | memoryview], streams: Sequence[Stream], work: Round) -> None:
        """Hand the same piece to all; a server that does not take it, or has failed, is cut off and the others go on."""
        for index, stream in enumerate(streams):
            reason = stream.put(data, seconds=self._target.silence, wanted=partial(work.running, index))
            if reason is not None:
                work.give_up(index, reason)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
