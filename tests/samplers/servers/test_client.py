"""One error for whatever a server does, with its address, what was asked and why; streams that can be cut off."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from delta_lightning.samplers.servers.client import Call, Client, ServerError
from support.judge_server import JudgeServer, serving


@pytest.fixture(scope="module")
def odd() -> Iterator[JudgeServer]:
    with serving(lambda body: {"echo": body}) as server:
        yield server


BEHAVIOURS = {
    "error_500": "HTTP 500: the judge fell over",
    "error_503": "HTTP 503$",
    "error_404": "HTTP 404: <html>not here</html>",
    "closed": "closed the connection without an answer",
    "reset": "Connection reset by peer",
    "half": "closed the connection in the middle of its answer|bytes of its answer are missing",
    "half_chunk": "closed the connection in the middle of its answer",
    "half_json": "no JSON in its answer: ",
    "html": "no JSON in its answer: .*Please log in",
    "binary": "no JSON in its answer",
    "nested": "no JSON in its answer",
    "not_http": "no HTTP: BadStatusLine: 220 mail.example.org ESMTP ready",
    "silent": "silent for 0.5 s",
    "redirect": "HTTP 302",
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_what_goes_wrong_is_said_with_the_address(odd: JudgeServer, name: str) -> None:
    client = Client(odd.url("").rstrip("/"), timeout=0.5 if name == "silent" else 60.0)
    with pytest.raises(ServerError, match=BEHAVIOURS[name]) as caught:
        client.post(f"/{name}", {"a": 1})
    assert caught.value.url == client.url and caught.value.asked == f"POST /{name}"
    status = int(name[-3:]) if name.startswith("error") else 302 if name == "redirect" else None
    assert caught.value.status == status


@pytest.mark.parametrize("name", ["proper", "chunked", "old", "slow"])
def test_json_goes_out_and_comes_in(odd: JudgeServer, name: str) -> None:
    client = Client(f"{odd.url('').rstrip('/')}/", timeout=60.0)
    assert client.post(f"/{name}", {"tokens": [1, 2], "text": "\u00fc"}) == {"echo": {"tokens": [1, 2], "text": "\u00fc"}}
    assert client.post(f"/{name}", b'{"raw": true}') == {"echo": {"raw": True}}


def test_an_empty_answer_is_none(odd: JudgeServer) -> None:
    assert Client(odd.url("").rstrip("/"), timeout=60.0).post("/empty", {}) is None


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match="Connection refused"):
        Client(f"http://127.0.0.1:{port}", timeout=1.0).get("/health")


def test_a_key_is_sent_and_never_said(odd: JudgeServer) -> None:
    client = Client(odd.url("").rstrip("/"), timeout=60.0, api_key="geheim")
    client.post("/proper", {})
    assert odd.requests[-1].headers["authorization"] == "Bearer geheim"
    with pytest.raises(ServerError) as caught:
        client.post("/closed", {})
    assert "geheim" not in str(caught.value)


class Streams(BaseHTTPRequestHandler):
    """Events by path; it notes when a client has gone."""

    gone = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        try:
            self.stream()
        except ConnectionError:
            self.gone.set()

    def stream(self) -> None:
        for index in range(3):
            self.wfile.write(f": a comment\n\ndata: {json.dumps({'index': index})}\n\n".encode())
        if self.path == "/whole":
            self.wfile.write(b"data: [DONE]\n\n")
        elif self.path == "/error":
            self.wfile.write(b'data: {"error": {"message": "out of memory"}}\n\n')
        while self.path == "/endless":
            self.wfile.write(b'data: {"index": 9}\n\n')
            time.sleep(0.01)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def streams() -> Iterator[Client]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Streams)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Client(f"http://127.0.0.1:{server.server_address[1]}", timeout=60.0)
    server.shutdown()
    server.server_close()


def test_a_stream_gives_its_events(streams: Client) -> None:
    assert list(streams.stream("/whole", {})) == [{"index": 0}, {"index": 1}, {"index": 2}]


@pytest.mark.parametrize(("path", "message"), [("/cut", "closed the connection in the middle"), ("/error", "out of memory")])
def test_a_stream_that_breaks_off_is_no_whole_one(streams: Client, path: str, message: str) -> None:
    events = streams.stream(path, {})
    assert [next(events) for _ in range(3)][-1] == {"index": 2}
    with pytest.raises(ServerError, match=message):
        next(events)


def test_closing_a_stream_closes_the_connection(streams: Client) -> None:
    Streams.gone.clear()
    events = streams.stream("/endless", {})
    next(events)
    events.close()
    assert Streams.gone.wait(60)


def test_another_thread_may_cut_an_exchange_off(odd: JudgeServer) -> None:
    client, call = Client(odd.url("").rstrip("/"), timeout=30.0), Call()
    threading.Timer(0.3, call.cancel).start()
    start = time.monotonic()
    with pytest.raises(ServerError):
        client.post("/silent", {}, call=call)
    assert time.monotonic() - start < 10 and call.cancelled
    with pytest.raises(ServerError, match="cancelled"):
        client.post("/proper", {}, call=call)
