from __future__ import annotations

from functools import partial

import pytest
import torch

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import HiddenGradient, TopKHiddenGradient
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from support import reference_delta
from support.proxies import close_to_reference, warm
from support.proxy_laws import check_bfloat16_states, check_invariances


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("k", [1, 3, 13])
def test_equals_the_reference(k: int, dtype: torch.dtype, tolerance: float) -> None:
    part = Delta(proxy=TopKHiddenGradient(k=k))
    close_to_reference(part, partial(reference_delta.hidden_gradient, k=k), dtype, tolerance)


def test_all_tokens_are_the_full_gradient() -> None:
    """Also with k above V."""
    wanted = Delta(proxy=HiddenGradient()).credit(warm()).scale_BT
    for k in (13, 32):
        torch.testing.assert_close(Delta(proxy=TopKHiddenGradient(k=k)).credit(warm()).scale_BT, wanted, rtol=0, atol=1e-12)
    assert not torch.allclose(Delta(proxy=TopKHiddenGradient(k=3)).credit(warm()).scale_BT, wanted, atol=1e-4)


def test_laws() -> None:
    check_credit(Delta(proxy=TopKHiddenGradient(k=3)))


def test_invariances() -> None:
    check_invariances(TopKHiddenGradient(k=3))


def test_bfloat16_states() -> None:
    check_bfloat16_states(TopKHiddenGradient(k=13))


@pytest.mark.parametrize("fields", [{"k": 0}, {"logits_mib": 0}])
def test_refuses_fields_out_of_range(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        TopKHiddenGradient(**fields)
