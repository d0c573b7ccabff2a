"""A double of a vLLM server for weights only: it fetches, writes receipts and keeps what it got, and can do so badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from torch import Tensor

from delta_lightning.samplers.servers.client import Client
from delta_lightning.samplers.servers.transfers.fetch import fetch
from delta_lightning.samplers.servers.transfers.folder import read_folder
from delta_lightning.samplers.vllm_plugin.receipts import Receipt


class WeightServer:
    """Its routes are those of vLLM.

    Attributes:
        workers: how many read each update. loaded: what each read last. label: as on /weight_info. asked: routes, in order.
        tamper: what becomes of weights on their way in. ended: updates read,
            whole or not. refuse: route -> text of an HTTP 500. stall_after: tensors after which
            the first worker reads no more until `release` is set.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers, self.label = workers, "default"
        self.loaded: list[dict[str, Tensor]] = []
        self.receipts: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.sources: list[dict[str, Any]] = []
        self.ended = 0
        self.refuse: dict[str, str] = {}
        self.stall_after: int | None = None
        self.release = threading.Event()
        self.client: Client

    def tamper(self, weights: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
        return weights

    def update(self, info: dict[str, Any]) -> None:
        self.sources.append(info["source"])
        self.loaded, self.receipts = [{} for _ in range(self.workers)], [{} for _ in range(self.workers)]
        failures: list[BaseException] = []

        def work(rank: int) -> None:
            try:
                self._read(rank, info)
            except Exception as error:  # noqa: BLE001 -- said to the trainer, as vLLM does
                failures.append(error)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(self.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.ended += 1
        if failures:
            raise failures[0]

    def _read(self, rank: int, info: dict[str, Any]) -> None:
        source = info["source"]
        stream = read_folder(Path(source["path"])) if "path" in source else fetch(source)
        receipt = Receipt(info["version"])
        for count, (name, value) in enumerate(receipt.note(self.tamper(stream))):
            if rank == 0 and count == self.stall_after:
                self.release.wait(60)
            self.loaded[rank][name] = value
        self.receipts[rank] = receipt.as_json()

    def answer(self, route: str, body: Any) -> Any:
        self.asked.append(route)
        if route in self.refuse:
            raise RuntimeError(self.refuse[route])
        if route == "/get_world_size":
            return {"world_size": self.workers}
        if route == "/update_weights":
            self.update(body["update_info"])
        if route == "/collective_rpc":
            return {"results": self.receipts}
        if route == "/update_weight_version":
            self.label = body["new_version"]
        return {}


@contextmanager
def weight_server(workers: int = 1) -> Iterator[WeightServer]:
    """A server that runs until the block ends."""
    server = WeightServer(workers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                status, said = 200, server.answer(self.path, json.loads(text) if text else None)
            except Exception as error:  # noqa: BLE001
                status, said = 500, {"error": {"message": f"Worker failed with error '{error}'"}}
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A trainer that cut the connection."""

    listener = Listener(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.client = Client(f"http://127.0.0.1:{listener.server_address[1]}", timeout=60.0)
    try:
        yield server
    finally:
        server.release.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


def until(condition: Any, seconds: float = 60.0) -> None:
    """Waits until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
