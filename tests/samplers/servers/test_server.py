"""What one server is given, forgiven, and given up for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from delta_lightning.samplers.servers.client import Client, ServerError
from delta_lightning.samplers.servers.server import PAUSE, Patience, Server, counted

PATIENCE = Patience(request=60.0, silence=60.0, answer=60.0, retries=2)
PAGE = """# HELP vllm:generation_tokens_total Number of generation tokens processed.
vllm:generation_tokens_total{engine="0",model_name="a"} 12.0
vllm:generation_tokens_total{engine="1",model_name="a"} 1.5e+06
vllm:prompt_tokens_total{engine="0",model_name="a"} 30.0
vllm:generation_tokens_created{engine="0",model_name="a"} 1.7e+09
"""


class Ended:
    """A process that has ended."""

    url = "http://127.0.0.1:1"

    def alive(self) -> bool:
        return False

    def exit_code(self) -> int:
        return 137

    def log_tail(self) -> str:
        return "INFO loading\nout of memory\n"

    def stop(self) -> None:
        pass


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = {"/metrics": PAGE, "/empty/metrics": "# nothing\n", "/health": ""}[self.path].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def server_at(url: str, handle: Ended | None = None) -> Server:
    return Server(Client(url, timeout=60.0), slots=2, patience=PATIENCE, handle=handle)


def test_tokens_are_counted_over_all_engines_of_a_server(url: str) -> None:
    assert counted(Client(url, timeout=60.0), 60.0) == 12 + 1.5e6 + 30
    with pytest.raises(ServerError, match="start it without --disable-log-stats"):
        counted(Client(f"{url}/empty", timeout=60.0), 60.0)


def test_it_is_free_while_it_has_places_and_does_not_rest(url: str) -> None:
    server, now = server_at(url), time.monotonic()
    assert server.free(now)
    server.in_flight = 2
    assert not server.free(now)
    server.in_flight = 0
    assert server.failed(now) and not server.free(now) and server.free(now + PAUSE)
    server.lost = "gone"
    assert not server.free(now + PAUSE)


def test_failures_in_a_row_are_forgiven_twice_and_those_at_once_count_once(url: str) -> None:
    server, now = server_at(url), time.monotonic()
    assert [server.failed(now) for _ in range(9)] == [True] * 9
    assert server.failed(now + 1) and not server.failed(now + 10)
    server.answered()
    assert server.failed(now + 100), "an answer makes a new row"


def test_it_is_silent_only_while_it_holds_requests(url: str) -> None:
    server = server_at(url)
    time.sleep(0.05)
    assert server.silent() == 0.0
    with server.holding():
        time.sleep(0.05)
        assert 0.05 <= server.silent() < 60.0 and server.held() == 1
        with server.holding():
            assert server.silent() >= 0.05, "one more request is no sign of life"
    assert server.silent() == 0.0 and server.held() == 0


def test_why_it_is_given_up(url: str) -> None:
    error = ServerError(url, "POST /x", "closed the connection without an answer")
    assert server_at(url).why(error) is None, "it is healthy"
    assert "Connection refused" in (server_at("http://127.0.0.1:1").why(error) or "")
    assert server_at(url, Ended()).why(error) == (
        "closed the connection without an answer; its process ended with exit code 137; its log ends:\n"
        "INFO loading\nout of memory\n"
    )
