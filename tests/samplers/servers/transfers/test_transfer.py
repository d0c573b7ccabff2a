"""What two lists of checksums differ in, in words; addresses that only this machine knows."""

from __future__ import annotations

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.samplers.servers.transfers import HTTPTransfer, NCCLTransfer, WeightTransfer
from delta_lightning.samplers.servers.transfers.transfer import first_difference

SENT = {"embedding": 0xAB, "layers.0.up": 1, "layers.1.up": 2}


@pytest.mark.parametrize(
    ("arrived", "said"),
    [
        (SENT, None),
        (dict(reversed(SENT.items())), None),
        ({}, "3 of 3 parameters did not arrive, the first of them embedding"),
        ({"embedding": 0xAB}, "2 of 3 parameters did not arrive, the first of them layers.0.up"),
        (SENT | {"embedding": 0xCD}, "embedding arrived with checksum 000000cd where 000000ab was sent"),
        (SENT | {"layers.0.up": 2, "layers.1.up": 1}, "layers.0.up arrived with checksum 00000002 where 00000001 was sent"),
        (SENT | {"bias": 3}, "bias arrived, which was not sent"),
    ],
)
def test_the_first_difference_is_named(arrived: dict[str, int], said: str | None) -> None:
    assert first_difference(SENT, arrived) == said


ELSEWHERE = "203.0.113.7"  # set aside for documents, nobody's


@pytest.mark.parametrize("transfer", [HTTPTransfer(), HTTPTransfer(host="0.0.0.0", address="localhost"), NCCLTransfer()])
def test_servers_elsewhere_are_not_sent_to_their_own_machine_for_weights(transfer: WeightTransfer) -> None:
    transfer.check_reach(["127.0.0.1", "localhost"])
    with pytest.raises(
        ConfigError, match=rf"an address at which the server on {ELSEWHERE} reaches this machine, got (127|local)"
    ):
        transfer.check_reach(["localhost", ELSEWHERE])


def test_an_address_that_others_know_is_left_alone() -> None:
    for transfer in (
        HTTPTransfer(host="0.0.0.0", address="node1"),
        HTTPTransfer(host="192.0.2.1"),
        NCCLTransfer(address="node1"),
    ):
        transfer.check_reach([ELSEWHERE])
