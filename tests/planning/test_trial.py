"""Bytes of credit, from trials of the assigner."""

from __future__ import annotations

import torch

from delta_lightning.credit import Compose, Delta, Uniform
from delta_lightning.credit.proxies import HeadGradient, HiddenGradient
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.planning.trial import CreditCost, credit_cost

WIDTH = 2048  # a trial of a narrow model has many tokens


def cost(assigner: CreditAssigner, dtype: torch.dtype = torch.float32) -> CreditCost:
    return credit_cost(assigner, hidden=WIDTH, vocabulary=1000, dtype=dtype, copies_head=False)


def test_uniform_credit_is_its_result() -> None:
    found = cost(Uniform())
    assert found.per_token == 4.0
    assert found.head == 0 and found.block < 100


def test_features_that_are_kept_count_by_the_token() -> None:
    rows, features = cost(Delta()), cost(Delta(proxy=HiddenGradient()))
    assert WIDTH * 4 <= features.per_token <= WIDTH * 4 + rows.per_token  # N D of them, in the dtype of the states


def test_budgets_and_copies_of_the_head_count_where_it_is_read() -> None:
    def more(dtype: torch.dtype) -> int:
        wide, least = (cost(Delta(proxy=HiddenGradient(logits_mib=mib)), dtype).head for mib in (9, 1))
        return wide - least

    copy = 4 * 1000 * WIDTH
    assert more(torch.float32) == more(torch.bfloat16) == 3 * (8 << 20)
    assert cost(Delta(proxy=HiddenGradient(logits_mib=1)), torch.bfloat16).head > copy
    inside, least = (cost(Compose(assigners=(Delta(proxy=HeadGradient(block_mib=mib, logits_mib=1)),))) for mib in (33, 32))
    assert inside.head - least.head == 3 << 20


def test_the_temporaries_of_parts_that_read_the_head_count_in_full_however_few_tokens() -> None:
    found = cost(Delta(proxy=HiddenGradient(logits_mib=1)))  # no more than in the trial
    assert found.block == 0 and found.head > 1 << 20
    assert found.bytes(1, 1, WIDTH) > found.head


def test_bytes_of_a_step() -> None:
    found = CreditCost(block=1 << 20, per_token=10.0, head=0)
    assert found.bytes(100, 100, 1 << 20) == (1 << 20) + 1000
    assert found.bytes(100, 1, 1 << 19) == (1 << 19) + 1000
    assert CreditCost(block=0, per_token=10.0, head=7).bytes(100, 1, 1) == 1000 + 7
