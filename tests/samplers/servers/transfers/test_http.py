"""Weights over HTTP, to doubles of servers that read them with the plug-in's own code."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from torch import Tensor

from delta_lightning.errors import ConfigError
from delta_lightning.samplers.servers.client import Client
from delta_lightning.samplers.servers.transfers import Delivered, HTTPTransfer, Target, TransferSession, sender
from support.weight_server import WeightServer, until, weight_server

TARGET = Target(dtype=torch.float32, tied="embedding", silence=60.0, shapes={})


def weights(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = {"embedding": (50, 8), "norm": (8,), "up": (300, 1000), "down": (1000, 300), "scale": (), "none": (0, 4)}
    made = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    return made | {"strided": made["up"].t()}


@pytest.fixture
def server() -> Iterator[WeightServer]:
    with weight_server() as one:
        yield one


@pytest.fixture
def session() -> Iterator[TransferSession]:
    opened = HTTPTransfer().open(TARGET)
    yield opened
    opened.close()
    opened.close()


def send(session: TransferSession, servers: Iterable[WeightServer], given: dict[str, Tensor], version: int = 4) -> Delivered:
    return session.send(version, f"run/{version}", given.items(), [server.client for server in servers])


def reasons(delivered: Delivered) -> list[str | None]:
    return [None if failure is None else failure.reason for failure in delivered.failures]


def arrived(loaded: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    return list(loaded) == list(given) and all(torch.equal(loaded[name], value) for name, value in given.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_worker_of_every_server_gets_every_bit(dtype: torch.dtype) -> None:
    given = weights(dtype)
    with weight_server(workers=2) as one, weight_server() as other:
        session = HTTPTransfer().open(Target(dtype=dtype, tied=None, silence=60.0, shapes={}))
        for version in (1, 2):
            delivered = send(session, [one, other], given, version)
            assert delivered.names == tuple(given) and delivered.failures == (None, None)
            assert delivered.num_bytes == sum(value.numel() * value.element_size() for value in given.values())
            assert delivered.seconds > 0
            assert len(one.loaded) == 2 and len(other.loaded) == 1
            assert all(arrived(loaded, given) for loaded in (*one.loaded, *other.loaded))
            assert one.label == other.label == f"run/{version}"
            given = {name: value + 1 for name, value in given.items()}
        session.close()


def test_servers_are_told_to_begin_load_end_prove_and_only_then_what_they_serve(
    session: TransferSession, server: WeightServer
) -> None:
    assert send(session, [server], weights()).failures == (None,)
    assert server.asked == [
        "/get_world_size", "/start_weight_update", "/update_weights", "/finish_weight_update", "/collective_rpc",
        "/update_weight_version",
    ]  # fmt: skip


def test_weights_are_cast_to_the_servers_dtype_and_counted_in_the_trainers(
    session: TransferSession, server: WeightServer
) -> None:
    given = weights(torch.float64) | {"steps": torch.arange(3)}
    delivered = send(session, [server], given)
    assert delivered.failures == (None,)
    assert delivered.num_bytes == sum(value.numel() * 8 for value in given.values())
    [loaded] = server.loaded
    assert loaded["steps"].dtype == torch.int64
    assert all(value.dtype == torch.float32 for name, value in loaded.items() if name != "steps")


def flipped(given: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for name, value in given:
        yield name, value.flip(0) if name == "down" else value


def without_the_end(given: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    yield from [pair for pair in given if pair[0] in ("embedding", "norm")]


def exchanged(given: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    other = {"up": "down", "down": "up"}
    for name, value in given:
        yield other.get(name, name), value


def doubled(given: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for name, value in given:
        yield name, value
        if name == "norm":
            yield "norm2", value


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (flipped, "down arrived with checksum [0-9a-f]{8} where [0-9a-f]{8} was sent"),
        (without_the_end, "5 of 7 parameters did not arrive, the first of them up"),
        (exchanged, "up arrived with checksum"),
        (doubled, "norm2 arrived, which was not sent"),
    ],
)
def test_what_arrives_otherwise_than_it_was_sent_is_a_failure_that_names_it(
    session: TransferSession, server: WeightServer, monkeypatch: pytest.MonkeyPatch, fault: Any, reason: str
) -> None:
    import re

    with weight_server() as good:
        monkeypatch.setattr(server, "tamper", fault)
        delivered = send(session, [server, good], weights())
        said = reasons(delivered)
        assert said[0] is not None and re.search(reason, said[0]) and said[1] is None
        assert "7 tensors" in str(delivered.failures[0]) and "of version 4" in str(delivered.failures[0])
        assert server.label == "default" and good.label == "run/4", "a server that failed must not claim the version"
        monkeypatch.undo()
        assert send(session, [server, good], weights()).failures == (None, None)


def test_a_server_of_another_version_is_a_failure(session: TransferSession, server: WeightServer) -> None:
    read = server._read

    def stale(rank: int, info: dict[str, Any]) -> None:
        read(rank, info | {"version": 3})

    server._read = stale  # type: ignore[method-assign]
    [reason] = reasons(send(session, [server], weights()))
    assert reason is not None and "bytes of version 3 arrived" in reason


@pytest.mark.parametrize("route", ["/get_world_size", "/start_weight_update", "/update_weights", "/finish_weight_update",
                                   "/collective_rpc", "/update_weight_version"])  # fmt: skip
def test_a_server_that_refuses_is_named_and_the_others_go_on(
    session: TransferSession, server: WeightServer, route: str
) -> None:
    with weight_server() as good:
        server.refuse[route] = "no memory left"
        first, second = send(session, [server, good], weights()).failures
        assert first is not None and route in first.asked and "no memory left" in first.reason
        assert first.url == server.client.url and second is None and arrived(good.loaded[0], weights())


def test_a_server_that_is_away_is_named_and_the_weights_are_read_to_their_end(session: TransferSession) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{free.getsockname()[1]}", timeout=2.0)
    given = iter(weights().items())
    delivered = session.send(1, "run/1", given, [client])
    assert next(given, None) is None and len(delivered.names) == 7
    assert delivered.failures[0] is not None and "refused" in delivered.failures[0].reason


def test_a_server_that_hangs_is_cut_off_and_the_others_get_all(server: WeightServer) -> None:
    session = HTTPTransfer().open(Target(dtype=torch.float32, tied=None, silence=3.0, shapes={}))
    server.stall_after = 2
    given = {f"w{index}": torch.full((400, 1000), float(index)) for index in range(20)}
    with weight_server() as good:
        start = time.monotonic()
        said = reasons(send(session, [server, good], given))
        assert said == ["it took no weights in 3 s", None] and time.monotonic() - start < 40, "once, not for each tensor"
        assert arrived(good.loaded[0], given)
        server.release.set()
        server.stall_after = None
        until(lambda: not server.loaded[0] or len(server.loaded[0]) < 20)
    session.close()


def test_a_server_whose_engine_dies_is_cut_off_when_it_says_so(
    session: TransferSession, server: WeightServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request for the update is never answered then."""
    monkeypatch.setattr(sender, "LOOK", 0.2)
    server.stall_after, server.refuse["/health"] = 2, "the engine is dead"
    given = {f"w{index}": torch.full((400, 1000), float(index)) for index in range(20)}
    with weight_server() as good:
        start = time.monotonic()
        first, second = send(session, [server, good], given).failures
        assert time.monotonic() - start < TARGET.silence
        assert first is not None and first.reason.startswith("its /health: HTTP 500: ") and second is None
        assert "the engine is dead" in first.reason and arrived(good.loaded[0], given)


def test_a_trainer_that_fails_in_the_middle_leaves_no_half_update_behind(
    session: TransferSession, server: WeightServer
) -> None:
    def broken() -> Iterator[tuple[str, Tensor]]:
        yield "w0", torch.zeros(300, 300)
        yield "w1", torch.zeros(300, 300)
        raise ValueError("a rank died")

    with pytest.raises(ValueError, match="a rank died"):
        session.send(1, "run/1", broken(), [server.client])
    until(lambda: server.ended)  # it is not left waiting
    assert server.label == "default" and not server.receipts[0]
    assert send(session, [server], weights()).failures == (None,)


def ask(url: str, token: str, path: str = "/weights") -> int:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_nobody_gets_weights_without_the_update_s_token_and_nobody_twice(
    session: TransferSession, server: WeightServer
) -> None:
    asked: list[int] = []
    hold = threading.Event()

    def slow() -> Iterator[tuple[str, Tensor]]:
        yield "w0", torch.zeros(3)
        until(lambda: server.sources)
        source = server.sources[0]
        asked.append(ask(source["url"], "guessed"))
        asked.append(ask(source["url"], ""))
        asked.append(ask(source["url"], source["token"], "/other"))
        until(lambda: bool(server.loaded[0]))  # its worker has connected
        asked.append(ask(source["url"], source["token"]))
        hold.set()
        yield "w1", torch.zeros(3)

    assert session.send(1, "run/1", slow(), [server.client]).failures == (None,)
    assert asked == [403, 403, 403, 403] and hold.is_set()
    source = server.sources[0]
    assert ask(source["url"], source["token"]) == 403, "a token is worth nothing after its update"
    send(session, [server], weights())
    assert server.sources[1]["token"] != source["token"] and len(source["token"]) > 30


def test_few_tensors_wait_in_memory(session: TransferSession, server: WeightServer) -> None:
    """The stream stops being read while a worker is behind."""
    server.stall_after = 1
    handed = []

    def counted() -> Iterator[tuple[str, Tensor]]:
        for index in range(12):
            handed.append(index)
            yield f"w{index}", torch.zeros(1_000_000)  # more than a socket's buffers hold

    thread = threading.Thread(target=lambda: session.send(1, "run/1", counted(), [server.client]))
    thread.start()
    until(lambda: len(handed) >= 4)
    time.sleep(0.5)
    assert len(handed) <= 8
    server.release.set()
    thread.join(60)
    assert not thread.is_alive() and len(handed) == 12 and len(server.loaded[0]) == 12


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"HTTPTransfer\.address: wanted the address at which servers reach this machine"):
        HTTPTransfer(host="0.0.0.0")
    with pytest.raises(ConfigError, match=r"HTTPTransfer\.port"):
        HTTPTransfer(port=70000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="free to listen on"):
            HTTPTransfer(port=taken.getsockname()[1]).open(TARGET)
    assert HTTPTransfer(host="0.0.0.0", address="trainer").backend() == "delta_lightning_http"
