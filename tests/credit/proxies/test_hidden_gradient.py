from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import HiddenGradient
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.types import Need
from support import reference_delta
from support.proxies import close_to_reference
from support.proxy_laws import check_bfloat16_states, check_invariances


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_equals_the_reference(k: int, dtype: torch.dtype, tolerance: float) -> None:
    close_to_reference(Delta(refinements=k, proxy=HiddenGradient()), reference_delta.hidden_gradient, dtype, tolerance)


def test_laws() -> None:
    check_credit(Delta(proxy=HiddenGradient()))


def test_invariances() -> None:
    check_invariances(HiddenGradient())


def test_bfloat16_states() -> None:
    check_bfloat16_states(HiddenGradient())


def test_needs_the_head() -> None:
    assert Delta(proxy=HiddenGradient()).needs() == {Need.HIDDEN, Need.HEAD}


def test_refuses_no_memory() -> None:
    with pytest.raises(ConfigError, match=r"proxy\.logits_mib"):
        HiddenGradient(logits_mib=0)
