"""A double of a vLLM server: a process of its own that speaks the same HTTP with a tiny model, and misbehaves on demand."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from delta_lightning.samplers.servers.checksum import sampled_checksum
from delta_lightning.samplers.servers.question import CUT
from delta_lightning.samplers.servers.transfers.wire import read_tensors
from delta_lightning.types import Prompt, SamplingParams
from support.copies import CopySession, first_half, nothing, swapped_layers
from support.models import tiny_model

WEIGHT_FAULTS = {"stale": nothing, "half": first_half, "swapped": swapped_layers}
SHAPE = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "tie_word_embeddings",
)  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "fault": "",  # what it does wrong from now on
    "after": 0,  # generate requests that it first serves well
    "times": 1 << 30,  # requests that go wrong
    "updates": 0,  # updates of the weights that arrive before the fault
    "delay": 0.0,  # seconds that each completion takes
    "busy": 0.0,  # seconds until the engine answers questions
    "version": "0.32.0", "logprobs_mode": "processed_logprobs", "async_scheduling": False, "cuts": True, "dtype": "float32",
    "backend": "delta_lightning_http", "plugin": True, "dev_mode": True, "counts": True, "tokenizer": True,
    "forget_head": False, "max_sequences": 4,
}  # fmt: skip


class NotHereError(Exception):
    """HTTP 404."""


class Double:
    """The server's state."""

    def __init__(self, model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
        self.settings = DEFAULTS | settings
        self.model, self.tokenizer = model, tokenizer
        dtype = getattr(torch, self.settings["dtype"])
        self.copy = CopySession(model, tokenizer, dtype=dtype, forget_tied_head=self.settings["forget_head"])
        self.label, self.lock, self.counting = "default", threading.Lock(), threading.Lock()
        self.updates = 0
        self.tokens, self.asked, self.served, self.aborted, self.running, self.most = 0, 0, 0, 0, 0, 0
        self.mass: dict[str, list[float]] = {}
        self.receipt: dict[str, Any] = {}

    def faulty(self) -> str:
        """The fault of this generate request, if it has one."""
        with self.counting:
            self.asked += 1
            due = self.settings["after"] < self.asked <= self.settings["after"] + self.settings["times"]
        return self.settings["fault"] if due else ""

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        with self.counting:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            yield
        finally:
            with self.counting:
                self.running -= 1

    def get(self, path: str) -> Any:
        if path == "/stub":
            return {name: getattr(self, name) for name in ("asked", "served", "aborted", "running", "most", "mass", "label")}
        if self.settings["fault"] == "not vllm":
            return {"hello": "I am a web shop"}
        if path == "/version":
            return {"version": self.settings["version"]}
        if path == "/health":
            return None
        if path == "/metrics":
            lines = [f'vllm:generation_tokens_total{{engine="0",model_name="tiny"}} {self.tokens:.1f}'] * self.settings[
                "counts"
            ]
            return "\n".join(["# HELP of something", *lines, ""])
        if path == "/weight_info" and self.settings["dev_mode"]:
            time.sleep(self.settings["busy"])
            return {"weight_version": self.label}
        if path.startswith("/get_world_size"):
            return {"world_size": 1}
        raise NotHereError

    def post(self, path: str, body: Any) -> Any:
        if path == "/stub":
            self.settings |= body
            self.asked = 0
            return {}
        if path == "/detokenize" and self.settings["tokenizer"]:
            text = self.tokenizer.decode(body["tokens"], skip_special_tokens=False)
            return {"prompt": text[::-1] if self.settings["tokenizer"] == "another" else text}
        if not self.settings["dev_mode"]:
            raise NotHereError
        if path == "/collective_rpc" and self.settings["plugin"]:
            time.sleep(self.settings["busy"])
            return {"results": [getattr(self, body["method"])(*body["args"])]}
        if path == "/update_weights":
            return self.update(body["update_info"])
        if path == "/update_weight_version":
            self.label = body["new_version"]
            return {}
        if path == "/reset_prefix_cache":
            return {"success": self.running == 0}
        if path in ("/start_weight_update", "/finish_weight_update", "/abort_requests"):
            return {}
        raise NotHereError

    # What the plug-in adds -------------------------------------------------------------------------------------------

    def delta_describe(self) -> dict[str, Any]:
        config, said = self.model.config, ("logprobs_mode", "async_scheduling", "cuts", "dtype", "max_sequences", "backend")
        return {name: self.settings[name] for name in said} | {
            "vocabulary": int(self.model.lm_head.weight.shape[0]), "context": config.max_position_embeddings,
            "config": {name: getattr(config, name, None) for name in SHAPE},
        }  # fmt: skip

    def delta_receipt(self) -> dict[str, Any]:
        return self.receipt

    def delta_take_mass(self, requests: list[tuple[str, int]]) -> dict[str, list[float]]:
        return {name: self.mass.pop(name)[:length] for name, length in requests if name in self.mass}

    def delta_forget_mass(self, names: list[str]) -> dict[str, int]:
        forgotten = len(self.mass)
        self.mass.clear()
        return {"forgotten": forgotten}

    def update(self, info: dict[str, Any]) -> dict[str, Any]:
        source = info["source"]
        request = urllib.request.Request(f"{source['url']}/weights", headers={"Authorization": f"Bearer {source['token']}"})
        with urllib.request.urlopen(request, timeout=60) as response:

            def read_into(buffer: memoryview) -> None:
                while len(buffer):
                    count = response.readinto(buffer)
                    if not count:
                        raise ConnectionError("the trainer broke off")
                    buffer = buffer[count:]

            weights = list(read_tensors(read_into))
        self.receipt = {
            "version": info["version"], "num_bytes": sum(value.numel() * value.element_size() for _, value in weights),
            "checksums": {name: sampled_checksum(value) for name, value in weights},
        }  # fmt: skip
        self.updates += 1
        fault = self.settings["fault"] if self.updates > self.settings["updates"] else ""
        if fault == "loses weights":
            self.receipt["checksums"].popitem()
        self.copy.fault = WEIGHT_FAULTS.get(fault, lambda sent: sent)
        with self.lock:
            self.copy.update_weights(0, weights)
        return {}

    # Sampling --------------------------------------------------------------------------------------------------------

    def score(self, ids: list[int]) -> dict[str, Any]:
        with self.lock:
            [values] = self.copy.logprobs([ids])
        entries = [{str(token): {"logprob": value}} for token, value in zip(ids[1:], values.tolist(), strict=True)]
        return {"choices": [{}], "prompt_logprobs": [None, *entries]}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = body["sampling_params"]
        cut = (asked.get("extra_args") or {}).get(CUT)
        assert not (cut and cut["sequences"]), "the double bans single tokens only"
        assert asked["ignore_eos"] and not asked["detokenize"] and asked["logprobs"] == 0
        kept = {name: cut[name] for name in ("top_p", "top_k", "min_p")} | {"bad_token_ids": tuple(cut["never"])} if cut else {}
        params = SamplingParams(max_new_tokens=asked["max_tokens"], temperature=asked["temperature"],
                                stop_token_ids=tuple(asked["stop_token_ids"]), **kept)  # fmt: skip
        prompt = Prompt(id="", text="", token_ids=tuple(body["token_ids"]), source="", reference={})
        with self.lock:
            [done] = self.copy.generate([prompt], num_completions=1, params=params, seed=asked["seed"])
        tokens = list(done.token_ids)
        if cut:
            self.mass[cut["request"]] = [raw - value for raw, value in zip(done.raw_logprobs, done.logprobs, strict=True)]
        self.tokens += len(tokens)
        return {
            "index": 0, "token_ids": tokens, "finish_reason": done.finish_reason,
            "logprobs": {"content": [
                {"token_id": token, "logprob": value} for token, value in zip(tokens, done.logprobs, strict=True)
            ]},
            "weight_versions": [{"version": self.label, "start": 0, "end": len(tokens)}],
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: Double

    def do_GET(self) -> None:
        self.answer(lambda: self.double.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/inference/v1/generate" and "prompt_logprobs" not in body["sampling_params"]:
            self.generate(body)
        elif self.path == "/inference/v1/generate":
            self.answer(lambda: self.double.score(body["token_ids"]))
        else:
            self.answer(lambda: self.double.post(self.path, body))

    def answer(self, make: Any) -> None:
        try:
            self.reply(200, make())
        except NotHereError:
            self.reply(404, {"detail": "Not Found"})
        except Exception as error:  # noqa: BLE001 -- a server's edge: whatever it is, the client is told
            self.reply(500, {"detail": f"{type(error).__name__}: {error}"})

    def reply(self, status: int, answer: Any) -> None:
        data = b"" if answer is None else (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def generate(self, body: dict[str, Any]) -> None:
        double, fault = self.double, self.double.faulty()
        try:
            with double.working():
                self.misbehave(fault)
                self.wait(double.settings["delay"])
                choice = double.complete(body)
            self.garble(fault, choice)
            if body["stream"]:
                self.stream(choice)
            else:
                self.reply(200, "<html>nothing here</html>" if fault == "no JSON" else {"choices": [choice]})
            double.served += 1
        except ConnectionError:
            double.aborted += 1
            self.close_connection = True

    def misbehave(self, fault: str) -> None:
        if fault == "die":
            time.sleep(0.2)  # others are in flight by then
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            self.wait(3600)
        if fault == "error":
            self.reply(500, {"error": {"message": "EngineCore encountered an issue"}})
            raise ConnectionError

    def garble(self, fault: str, choice: dict[str, Any]) -> None:
        if fault == "another version":
            choice["weight_versions"][0]["version"] = "other/7"
        if fault == "no choice":
            choice.clear()
        if fault == "too few logprobs":
            choice["logprobs"]["content"].pop()
        if fault == "abort":
            choice["finish_reason"] = "abort"
        if fault == "not finite":
            choice["logprobs"]["content"][-1]["logprob"] = -9999.0

    def stream(self, choice: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for index, (token, entry) in enumerate(zip(choice["token_ids"], choice["logprobs"]["content"], strict=True)):
            self.wait(0.0)
            last = index + 1 == len(choice["token_ids"])
            more = {} if last else {"finish_reason": None, "weight_versions": None}
            one = {**choice, "token_ids": [token], "logprobs": {"content": [entry]}, **more}
            self.chunk(f"data: {json.dumps({'choices': [one]})}\n\n")
        self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()

    def wait(self, seconds: float) -> None:
        """Raises `ConnectionError` when the client has gone; vLLM drops the request then."""
        until = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self.connection], [], [], min(0.02, max(0.0, until - time.monotonic())))
            if ready and not self.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError
            if time.monotonic() >= until:
                return

    def log_message(self, *args: Any) -> None:
        pass


@dataclass
class Running:
    """A double that runs."""

    url: str
    pid: int

    def set(self, **settings: Any) -> None:
        """Changes what it does."""
        request = urllib.request.Request(f"{self.url}/stub", json.dumps(settings).encode())
        urllib.request.urlopen(request, timeout=60).close()

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stub", timeout=60) as response:
            return dict(json.load(response))

    def mend(self) -> None:
        """No fault any more."""
        self.set(fault="", after=0, times=1 << 30, delay=0.0, busy=0.0, tokenizer=True)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Nursery:
    """Starts doubles by forking a process that has imported everything: the first takes seconds, the others none."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._running = folder, list[Running]()
        tests = Path(__file__).parents[1]
        path = f"{tests}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )  # fmt: skip

    def __call__(self, model: Any, tokenizer: Any, **settings: Any) -> Running:
        """A double of the model, with all weights 0: as a server that has not been given any."""
        given = self._folder / f"given-{len(self._running)}.pt"
        torch.save((model, tokenizer, settings), given)
        assert self._process.stdin is not None and self._process.stdout is not None
        print(given, file=self._process.stdin, flush=True)
        pid, port = self._process.stdout.readline().split()
        self._running.append(Running(f"http://127.0.0.1:{port}", int(pid)))
        return self._running[-1]

    def close(self) -> None:
        for one in self._running:
            one.signal(signal.SIGKILL)
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def nursery() -> Iterator[Nursery]:
    """For a fixture of a module."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Nursery(Path(folder))) as started:
        yield started


def serve(given: str) -> None:
    """A child: serves until it is killed, or the nursery ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    model, tokenizer, settings = torch.load(given, weights_only=False)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    handler = type("DoubleHandler", (Handler,), {"double": Double(model, tokenizer, settings)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    print(os.getpid(), server.server_address[1], flush=True)
    server.serve_forever()


def main() -> None:
    torch.set_num_threads(1)
    tiny_model()  # imports what children would import one by one
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    for line in sys.stdin:
        if os.fork() == 0:
            try:
                serve(line.strip())
            finally:
                print("it failed to start", flush=True)  # which is no pid and port


if __name__ == "__main__":
    main()
