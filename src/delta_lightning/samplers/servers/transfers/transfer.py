"""The seam of weight transfers: what every way of sending weights to vLLM servers must do."""

from __future__ import annotations

import contextlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import ConfigError
from delta_lightning.samplers.servers.client import Client, ServerError


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What became of one update.

    Attributes:
        names: of the tensors, in order. num_bytes: of the tensors as the trainer holds them. seconds: for all servers.
        failures: one for each client, in order: why the update did not arrive, or None: the server has loaded what was sent,
            its receipt says so, and it names the label.
    """

    names: tuple[str, ...]
    num_bytes: int
    seconds: float
    failures: tuple[ServerError | None, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the servers hold.

    Attributes:
        dtype: of their weights; floating-point tensors are cast to it before they are sent.
        tied: name of the embedding that is the head too, or None.
        silence: longest silence, seconds: of a server while it loads, and of the trainer between two tensors.
        shapes: name -> shape of each tensor that is sent, in order.
    """

    dtype: torch.dtype
    tied: str | None
    silence: float
    shapes: Mapping[str, tuple[int, ...]]


class TransferSession(ABC):
    """An open way to the servers.

    Laws: every update is whole or a failure; `weights` is exhausted whatever happens to the servers; one tensor, or a bounded
    number of them, is held beside the trainer's own; what arrived is compared with what was sent by names, bytes and checksums.
    """

    @abstractmethod
    def send(self, version: int, label: str, weights: Iterable[tuple[str, Tensor]], clients: Sequence[Client]) -> Delivered:
        """Replace the weights of idle servers; they name `label` as their weight version afterwards.

        Caches are not emptied. Raises `RunError` for what is wrong on the trainer's side.
        """

    @abstractmethod
    def close(self) -> None:
        """Free ports, files and connections. May be called twice."""


class WeightTransfer(ABC):
    """Options of a way to send weights; `open` makes it ready. Only the first training rank sends."""

    @abstractmethod
    def backend(self) -> str:
        """The name that servers are started with (`--weight-transfer-config`)."""

    def check(self) -> None:  # noqa: B027 -- a hook, not a duty
        """Refuse what cannot work here, before anything loads. Raises `ConfigError`."""

    def check_reach(self, hosts: Sequence[str]) -> None:  # noqa: B027 -- a hook, not a duty
        """Refuse servers, on these hosts, that cannot find the weights. Raises `ConfigError`."""

    @abstractmethod
    def open(self, target: Target) -> TransferSession:
        """Make ready to send. Raises `ConfigError`."""


def first_difference(sent: Mapping[str, int], arrived: Mapping[str, int]) -> str | None:
    """In what two lists of checksums differ first, for people; None if they agree."""
    for name, checksum in sent.items():
        if name not in arrived:
            return f"{len(sent.keys() - arrived.keys())} of {len(sent)} parameters did not arrive, the first of them {name}"
        if arrived[name] != checksum:
            return f"{name} arrived with checksum {arrived[name]:08x} where {checksum:08x} was sent"
    more = [name for name in arrived if name not in sent]
    return f"{more[0]} arrived, which was not sent" if more else None


def check_address(setting: str, address: str, hosts: Sequence[str]) -> None:
    """Refuse an address that means another machine on one of `hosts`. Raises `ConfigError`.

    Args:
        setting: what holds the address. address: what servers are told to connect to. hosts: names or addresses of servers.
    """
    if address != "localhost" and not address.startswith("127.") and address != "::1":
        return
    for host in hosts:
        if not _is_here(host):
            raise ConfigError(
                setting, wanted=f"an address at which the server on {host} reaches this machine", got=address,
                remedy=f"Set {setting} to this machine's name or address; HTTPTransfer listens there with host=0.0.0.0.",
            )  # fmt: skip


def _is_here(host: str) -> bool:
    """False for a machine that is known and not this one: its addresses cannot be listened on."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return True  # who asks the server will say that there is no such host
    for family, kind, protocol, _, place in found:
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(place)
            return True
    return False
