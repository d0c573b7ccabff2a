"""The servers' end of an update over HTTP: one request, its answer read while it comes in."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor

from delta_lightning.samplers.servers.transfers.listener import PATH
from delta_lightning.samplers.servers.transfers.wire import read_tensors


def fetch(source: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an update, on the CPU, each in memory of its own.

    Args:
        source: what the trainer sent: its url, a one-time token, and the longest silence in seconds.

    Raises:
        ConnectionError: the trainer refuses, or goes away before the end. TimeoutError: it is silent.
    """
    place = urlsplit(source["url"])
    with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=source["silence"])) as connection:
        connection.request("GET", PATH, headers={"Authorization": f"Bearer {source['token']}"})
        with connection.getresponse() as response:
            if response.status != 200:
                raise ConnectionError(f"the trainer at {source['url']} answered {response.status} {response.reason}")

            def read_into(buffer: memoryview) -> None:
                done = 0
                while done < len(buffer):
                    count = _some(response, buffer[done:])
                    if count == 0:
                        raise ConnectionError("the trainer's stream of weights ended early")
                    done += count

            yield from read_tensors(read_into)


def _some(response: http.client.HTTPResponse, buffer: memoryview) -> int:
    try:
        return response.readinto(buffer)
    except http.client.IncompleteRead as error:
        raise ConnectionError("the trainer's stream of weights ended early") from error
