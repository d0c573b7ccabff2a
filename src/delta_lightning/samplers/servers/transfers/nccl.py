"""Weights over NCCL: vLLM's own trainer engine broadcasts from the first training rank's GPU to the servers' GPUs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from delta_lightning.errors import RunError, require
from delta_lightning.samplers.servers.client import Client, ServerError
from delta_lightning.samplers.servers.transfers.sender import DAY, Counted, Round
from delta_lightning.samplers.servers.transfers.transfer import (
    Delivered,
    Target,
    TransferSession,
    WeightTransfer,
    check_address,
)
from delta_lightning.samplers.vllm_plugin import NCCL


@dataclass(frozen=True, kw_only=True)
class NCCLTransfer(WeightTransfer):
    """One NCCL group of the first training rank and all workers of all servers; weights go from GPU to GPU, packed.

    Needs GPUs on both sides and vLLM beside the trainer. **It has not run on a GPU yet.** A server lost in the middle of an
    update hangs the broadcast until `model.limits.sync_seconds` ends the run; between updates the group is built anew.

    Args:
        address: name or address of the first training rank's machine, as servers reach it.
        port: of the meeting place; free, and the same for the whole run.
        buffer_mib: size of a packed broadcast, MiB; two such buffers are held on each GPU.
    """

    address: str = "127.0.0.1"
    port: int = 29551
    buffer_mib: int = 512

    def __post_init__(self) -> None:
        require(0 < self.port < 65536, "NCCLTransfer.port", wanted="a port", got=self.port, remedy="29551 is usual.")
        require(self.buffer_mib >= 1, "NCCLTransfer.buffer_mib", wanted="at least 1", got=self.buffer_mib, remedy="Raise it.")

    def backend(self) -> str:
        """vLLM's receiver with our receipts."""
        return NCCL

    def check_reach(self, hosts: Sequence[str]) -> None:
        """The default address is this machine's alone. Raises `ConfigError`."""
        check_address("model.sampler.transfer.address", self.address, hosts)

    def check(self) -> None:
        """There must be a GPU, and vLLM. Raises `ConfigError`."""
        import torch

        from delta_lightning.samplers.vllm_version import check_version

        check_version("model.sampler.transfer=NCCLTransfer")
        require(torch.cuda.is_available(), "model.sampler.transfer=NCCLTransfer", wanted="a GPU", got="none",
                remedy="Use HTTPTransfer.")  # fmt: skip

    def open(self, target: Target) -> TransferSession:
        """The group is built at the first update. Raises `ConfigError`."""
        self.check()
        return NCCLSession(self, target)


class NCCLSession(TransferSession):
    """See `NCCLTransfer`."""

    def __init__(self, options: NCCLTransfer, target: Target) -> None:
        self._options, self._target = options, target
        self._engine: Any = None
        self._servers: _Servers | None = None

    def send(self, version: int, label: str, weights: Iterable[tuple[str, Tensor]], clients: Sequence[Client]) -> Delivered:
        """See the seam; a failure of one server is a failure of all, since they are one group. Raises `RunError`."""
        counted, work = Counted(weights, self._target.dtype), Round(clients, self._target, version, label)
        start = time.perf_counter()
        try:
            servers = self._join(clients, work)
            servers.version = version
            self._engine.source.current = counted
            self._engine.send_weights()
        except ServerError as error:
            self.close()
            counted.exhaust()
            failures = tuple(ServerError(client.url, error.asked, error.reason, error.status) for client in clients)
            seconds = time.perf_counter() - start
            return Delivered(names=tuple(counted.checksums), num_bytes=counted.num_bytes, seconds=seconds, failures=failures)
        except (RuntimeError, ValueError, OSError) as error:  # what torch and vLLM raise
            counted.exhaust()
            problem = f"{type(error).__name__}: {error}"
            raise RunError(f"weights of version {version} could not be sent over NCCL: {problem}") from error
        return work.settle(counted)

    def close(self) -> None:
        """Take the group apart, on the servers that still answer."""
        if self._engine is not None:
            self._engine.shutdown()
        if self._servers is not None:
            for client in self._servers.clients:
                with contextlib.suppress(ServerError):  # it may be the reason
                    client.post("/shutdown_weight_transfer_engine", {}, self._target.silence)
        self._engine = self._servers = None

    def _join(self, clients: Sequence[Client], work: Round) -> _Servers:
        """The group of exactly these servers. Raises `ServerError`."""
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        if self._servers is not None and self._servers.clients == list(clients):
            return self._servers
        self.close()
        servers = _Servers(clients, [work.workers(index) for index in range(len(clients))], self._target.silence)
        info = NCCLTrainerInitInfo(
            rank=0, master_address=self._options.address, master_port=self._options.port,
            world_size=1 + sum(servers.workers), packed_buffer_size_bytes=self._options.buffer_mib << 20,
        )  # fmt: skip
        self._engine = WeightTransferTrainerFactory.trainer_init(info, client=servers, source=_source(self._target))
        self._servers = servers
        return servers


class _Servers:
    """All servers as the one that vLLM's trainer engine speaks to."""

    def __init__(self, clients: Sequence[Client], workers: Sequence[int], seconds: float) -> None:
        self.clients, self.workers, self.version = list(clients), list(workers), 0
        self._seconds = seconds

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Each server's workers stand behind those of the servers before it."""
        first = [init_info["rank_offset"] + sum(self.workers[:index]) for index in range(len(self.clients))]
        self._all(lambda index, client: client.post(
            "/init_weight_transfer_engine", {"init_info": init_info | {"rank_offset": first[index]}}, self._seconds
        ))  # fmt: skip

    def start_weight_update(self) -> None:
        """See vLLM's protocol."""
        self._all(lambda _, client: client.post("/start_weight_update", {}, self._seconds))

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Returns when all workers have read the broadcast."""
        body = {"update_info": update_info | {"version": self.version}}
        self._all(lambda _, client: client.post("/update_weights", body, DAY))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """The label comes later, with the proof."""
        self._all(lambda _, client: client.post("/finish_weight_update", {}, self._seconds))

    def _all(self, ask: Callable[[int, Client], Any]) -> None:
        with ThreadPoolExecutor(len(self.clients)) as threads:
            for _ in threads.map(ask, range(len(self.clients)), self.clients):
                pass


def _source(target: Target) -> Any:
    """The weights as vLLM's trainer engine reads them: what will come, then the tensors of the update at hand."""
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    class Source(WeightSource):  # type: ignore[misc]  # vLLM is untyped here
        current: Iterable[tuple[str, Tensor]] = ()

        def metadata(self) -> list[Any]:
            return [ParamMeta(name, target.dtype, shape) for name, shape in target.shapes.items()]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return iter(self.current)

    return Source()
