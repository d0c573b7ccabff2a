"""A plan beside what real phases take, metered: `PolicyModule`'s own step on the CPU, three sizes, bytes of live tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from delta_lightning.credit import Delta
from delta_lightning.credit.proxies import HiddenGradient
from delta_lightning.losses import EntropyBonus
from delta_lightning.models import Packed
from delta_lightning.trainer.cache import HiddenCache
from support.planned import Case, Sized, ratios

QWEN = Sized(hidden_size=128, layers=3, intermediate_size=384, vocabulary=3000, context=512)
OLMO = Sized(
    family="olmo3", hidden_size=160, layers=5, kv_heads=4, intermediate_size=320, vocabulary=2000, context=512,
    tie_embeddings=False,
)  # fmt: skip
DEEP = Sized(hidden_size=64, layers=8, intermediate_size=256, vocabulary=9000, context=512, tie_embeddings=False)
WITHIN = 0.15


def check(case: Case) -> None:
    found = ratios(case)
    assert set(found) == {"scoring", "credit", "update", "optimiser step", "stays"}
    assert all(abs(ratio - 1) <= WITHIN for ratio in found.values()), found


@pytest.mark.parametrize(
    "case",
    [Case(backbone=QWEN), Case(backbone=OLMO, recompute=True), Case(backbone=DEEP, completion_tokens=60)],
    ids=["qwen3", "olmo3-recomputed", "deep"],
)
def test_three_sizes(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [QWEN, OLMO, DEEP], ids=["qwen3", "olmo3", "deep"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("micro", [1, 4])
@pytest.mark.parametrize("tokens", [40, 200])
def test_sizes_in_full(backbone: Sized, recompute: bool, micro: int, tokens: int) -> None:
    check(Case(backbone=backbone, recompute=recompute, micro=micro, completion_tokens=tokens))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"layout": Packed()},
        {"credit": Delta(scope="group")},
        {"cache": HiddenCache(device_gib=0, host_gib=0)},
        {"penalties": (EntropyBonus(coefficient=0.01),)},
    ],
    ids=["packed", "groups", "no cache", "entropy"],
)
def test_what_a_config_may_change(changes: dict[str, object]) -> None:
    found = ratios(replace(Case(backbone=QWEN), **changes))
    assert all(abs(ratio - 1) <= WITHIN for ratio in found.values()), found


@pytest.mark.slow
def test_credit_that_reads_the_head_is_bounded_from_above() -> None:
    found = ratios(Case(backbone=QWEN, credit=Delta(proxy=HiddenGradient(logits_mib=1))))
    assert found.pop("credit") >= 1 - WITHIN
    assert all(abs(ratio - 1) <= WITHIN for ratio in found.values()), found
