from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import OutputRow
from delta_lightning.types import Need
from support import reference_delta
from support.proxies import close_to_reference
from support.proxy_laws import check_bfloat16_states, check_invariances


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_equals_the_reference(k: int, dtype: torch.dtype, tolerance: float) -> None:
    close_to_reference(Delta(refinements=k), reference_delta.output_row, dtype, tolerance)


def test_is_the_default_and_needs_no_head() -> None:
    assert Delta().proxy == OutputRow()
    assert OutputRow().needs() == {Need.HIDDEN}


def test_invariances() -> None:
    check_invariances(OutputRow())


def test_bfloat16_states() -> None:
    check_bfloat16_states(OutputRow())
