"""What two lists of checksums differ in, in words."""

from __future__ import annotations

import pytest

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
