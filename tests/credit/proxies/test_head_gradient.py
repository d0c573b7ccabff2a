from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import HeadGradient
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.types import Need
from support import reference_delta
from support.proxies import close_to_reference, head_weight, rescored, warm
from support.proxy_laws import check_bfloat16_states, check_invariances


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_equals_features_written_out(k: int, dtype: torch.dtype, tolerance: float) -> None:
    close_to_reference(Delta(refinements=k, proxy=HeadGradient()), reference_delta.head_gradient, dtype, tolerance)


@pytest.mark.parametrize("scope", ["all_ranks", "group", "rank"])
def test_laws(scope: str) -> None:
    check_credit(Delta(proxy=HeadGradient(), scope=scope))  # type: ignore[arg-type]


def test_laws_with_distances() -> None:
    check_credit(Delta(proxy=HeadGradient(), evidence="within_side", gamma="first_distance"))


def test_invariances() -> None:
    check_invariances(HeadGradient())


def test_bfloat16_states() -> None:
    check_bfloat16_states(HeadGradient())


def test_log_probabilities_are_not_read() -> None:
    """A cache may have rounded the hidden states after they were taken; p must add up to 1 all the same."""
    view = warm()
    odd = replace(view, world=replace(view.world, logprobs_BT=view.world.logprobs_BT * 1.7))
    part = Delta(proxy=HeadGradient())
    assert torch.equal(part.credit(odd).scale_BT, part.credit(view).scale_BT)


def test_keeps_the_row_that_the_default_drops() -> None:
    """All tokens of one sequence get the same hidden state: the default proxy sees p alone, this one also which token."""
    view = warm()
    flat_BTD = view.world.hidden_BTD * 0 + view.world.hidden_BTD[0, 2]
    same_state = replace(view, world=rescored(replace(view.world, hidden_BTD=flat_BTD), head_weight()))
    default, exact = Delta().credit(same_state).scale_BT, Delta(proxy=HeadGradient()).credit(same_state).scale_BT
    assert not torch.allclose(default, exact, atol=1e-3)


def test_needs_the_head() -> None:
    assert HeadGradient().needs() == {Need.HIDDEN, Need.HEAD}


@pytest.mark.parametrize("name", ["block_mib", "logits_mib"])
def test_refuses_no_memory(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"proxy\.{name}"):
        HeadGradient(**{name: 0})
