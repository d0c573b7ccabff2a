"""One update driven on all servers at once: told to begin, fed by a transfer, held to their receipts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from delta_lightning.samplers.servers.checksum import sampled_checksum
from delta_lightning.samplers.servers.client import Call, Client, ServerError, excerpt
from delta_lightning.samplers.servers.rpc import ask_workers
from delta_lightning.samplers.servers.transfers.transfer import Delivered, Target, first_difference

DAY = 86400.0  # seconds
LOOK = 5.0  # seconds between questions after the health of servers that are updated
RECEIPT = "delta_receipt"  # the method of our workers that says what arrived


class Counted:
    """Weights on their way: counted as the trainer holds them, cast as the servers do, summed up."""

    def __init__(self, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> None:
        self._weights, self._dtype = iter(weights), dtype
        self.checksums: dict[str, int] = {}
        self.num_bytes = self.sent_bytes = 0

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._weights:
            self.num_bytes += tensor.numel() * tensor.element_size()
            value = tensor.detach()
            value = value.to(self._dtype) if value.is_floating_point() else value
            self.sent_bytes += value.numel() * value.element_size()
            self.checksums[name] = sampled_checksum(value)
            yield name, value

    def exhaust(self) -> None:
        """Read what is left: it may be a collective that other ranks wait for."""
        for name, tensor in self._weights:
            self.num_bytes += tensor.numel() * tensor.element_size()
            self.checksums[name] = 0


class Round:
    """One update on some servers, each driven by a thread of its own.

    Args:
        clients: of the servers. target: what they hold. version, label: of the weights.
    """

    def __init__(self, clients: Sequence[Client], target: Target, version: int, label: str) -> None:
        self._clients, self._target, self._version, self._label = clients, target, version, label
        self._start = time.perf_counter()
        self._calls = [Call() for _ in clients]
        self._threads = ThreadPoolExecutor(max(1, len(clients)), thread_name_prefix="vllm-update")
        self._updates: list[Future[None]] = []
        self._reasons: dict[int, ServerError] = {}
        self._over = threading.Event()

    def workers(self, index: int) -> int:
        """How many processes of the server read the update; 0 where it does not answer, which fails it."""
        client = self._clients[index]
        try:
            answer = client.get("/get_world_size", self._target.silence)
            if not isinstance(answer, dict) or not isinstance(answer.get("world_size"), int):
                raise ServerError(client.url, "GET /get_world_size", f"no world_size in its answer: {excerpt(str(answer))}")
        except ServerError as error:
            self._reasons[index] = error
            return 0
        return int(answer["world_size"])

    def begin(self, sources: Sequence[dict[str, Any]]) -> None:
        """Tell each server to load from its source; returns at once."""
        for index, source in enumerate(sources):
            self._updates.append(self._threads.submit(self._load, index, source))
        threading.Thread(target=self._watch, name="vllm-update-watch", daemon=True).start()

    def running(self, index: int) -> bool:
        """True while the server may still read."""
        return not self._updates[index].done()

    def give_up(self, index: int, reason: str) -> None:
        """Cut the server off."""
        self._reasons.setdefault(index, ServerError(self._clients[index].url, "POST /update_weights", reason))
        self._calls[index].cancel()

    def finish(self, counted: Counted) -> Delivered:
        """Wait for the servers, have those name the label that prove what they loaded, and say what became of each."""
        for index, update in enumerate(self._updates):
            if not wait([update], self._target.silence).done:  # all has been handed over by now
                self.give_up(index, f"it did not load the weights in {self._target.silence:g} s")
            error = update.exception()
            if isinstance(error, ServerError):
                self._reasons.setdefault(index, error)
            elif error is not None:
                raise error
        return self.settle(counted)

    def settle(self, counted: Counted) -> Delivered:
        """The same where the servers have been driven by someone else."""
        failures = [self._outcome(index, counted) for index in range(len(self._clients))]
        self._threads.shutdown(wait=True)
        self._over.set()
        seconds = time.perf_counter() - self._start
        return Delivered(names=tuple(counted.checksums), num_bytes=counted.num_bytes, seconds=seconds, failures=tuple(failures))

    def _watch(self) -> None:
        """vLLM never answers an update whose engine has died, but says so when asked for its health. Silence may be work."""
        while not all(update.done() for update in self._updates) and not self._over.wait(LOOK):
            for index, client in enumerate(self._clients):
                if not self.running(index):
                    continue
                try:
                    client.get("/health")
                except ServerError as error:
                    if not isinstance(error.__cause__, TimeoutError):
                        self.give_up(index, f"its /health: {error.reason}")

    def _load(self, index: int, source: dict[str, Any]) -> None:
        client, seconds, call = self._clients[index], self._target.silence, self._calls[index]
        if index in self._reasons:
            raise self._reasons[index]
        client.post("/start_weight_update", {}, seconds, call)
        info = {"version": self._version, "tied": self._target.tied, "source": source}
        # It answers when all has been loaded, however long that takes; whether it still reads, the transfer sees.
        client.post("/update_weights", {"update_info": info}, DAY, call)
        client.post("/finish_weight_update", {}, seconds, call)

    def _outcome(self, index: int, counted: Counted) -> ServerError | None:
        client = self._clients[index]
        if index in self._reasons:
            return self._reasons[index]
        try:
            self._check_receipts(client, counted)
            client.post("/update_weight_version", {"new_version": self._label}, self._target.silence)
        except ServerError as error:
            return error
        return None

    def _check_receipts(self, client: Client, counted: Counted) -> None:
        for receipt in ask_workers(client, RECEIPT, seconds=self._target.silence):
            version, num_bytes = receipt.get("version"), receipt.get("num_bytes")
            problem = first_difference(counted.checksums, receipt.get("checksums", {}))
            if problem is None and (version, num_bytes) != (self._version, counted.sent_bytes):
                problem = f"{num_bytes} bytes of version {version} arrived"
            if problem is not None:
                sent = f"of the {len(counted.checksums)} tensors ({counted.sent_bytes} bytes) of version {self._version}"
                raise ServerError(client.url, f"receipt {sent}", problem)
