"""Fetches an update from the trainer over HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

from torch import Tensor

from delta_lightning.samplers.servers.transfers.listener import PATH
from delta_lightning.samplers.servers.transfers.wire import read_tensors
from delta_lightning.samplers.vllm_plugin.receiver import Receiver, Update


class HTTPReceiver(Receiver):
    """The receiving end of `HTTPTransfer`: one request for each update, its answer loaded while it comes in."""

    def weights(self, update: Update) -> Iterator[tuple[str, Tensor]]:
        """Tensor by tensor. Raises `ConnectionError` where the trainer refuses or goes away."""
        source = update.source
        place = urlsplit(source["url"])
        assert place.hostname is not None
        with closing(http.client.HTTPConnection(place.hostname, place.port, timeout=source["silence"])) as connection:
            connection.request("GET", PATH, headers={"Authorization": f"Bearer {source['token']}"})
            with connection.getresponse() as response:
                if response.status != 200:
                    raise ConnectionError(f"the trainer at {source['url']} answered {response.status} {response.reason}")

                def read_into(buffer: memoryview) -> None:
                    done = 0
                    while done < len(buffer):
                        count = response.readinto(buffer[done:])
                        if count == 0:
                            raise ConnectionError("the trainer's stream of weights ended early")
                        done += count

                for name, tensor in read_tensors(read_into):
                    yield name, tensor.to(self.device)
