"""Every credit part gives a policy with an adapter the credit of the plain model with the merged weights, whole or sharded."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from delta_lightning.credit import Column, Delta, EntropyAdvantage, Schedule
from delta_lightning.credit.proxies import GradientProxy
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.parts import concrete_parts
from support.lora import adapted, merged
from support.models import tiny_model
from support.part_samples import made
from support.sharded import cut
from support.steps import StepSetup, make_buffer
from support.world import run_ranks

TOLERANCE = 1e-5  # norms of `transformers` compute in float32, whatever the model's dtype
MODELS = {"qwen3": True, "olmo3": False}  # whether the head is tied
# Those whose defaults do not show what the policy says: of a column, of entropies beyond the bound, of the first step.
CHOSEN = {
    "Column": Column(missing="uniform"), "EntropyAdvantage": EntropyAdvantage(alpha=0.1, kappa=1.1),
    "Schedule": Schedule(ramp_steps=0),
}  # fmt: skip
PARTS: dict[str, CreditAssigner] = {
    **{cls.__name__: CHOSEN.get(cls.__name__) or made(cls) for cls in concrete_parts(CreditAssigner)},
    **{f"Delta of {cls.__name__}": Delta(proxy=made(cls)) for cls in concrete_parts(GradientProxy)},
}
BLIND = {"Column", "GRPOLambda", "KTAE", "PositionDecay", "Random", "Uniform"}  # do not read the policy


def credit_of(kind: str, family: str) -> dict[str, dict[int, Tensor]]:
    """By part and sequence id, of this rank's sequences: scale and shift of the trained tokens, [2, n]."""
    torch.set_num_threads(1)
    options = {"dtype": torch.float64, "tie_word_embeddings": MODELS[family]}
    model = {
        "base": lambda: tiny_model(family, **options),
        "adapted": lambda: adapted(family, **options),
        "merged": lambda: merged(adapted(family, **options)),
        "sharded": lambda: cut(lambda: adapted(family, **options)),
    }[kind]()
    found = {}
    for name, part in PARTS.items():
        experience = make_buffer(model, StepSetup(credit=part, groups=4)).experience
        batch, scale_BT, shift_BT = experience.batch, experience.credit.scale_BT, experience.credit.shift_BT
        both = torch.stack([scale_BT, torch.zeros_like(scale_BT) if shift_BT is None else shift_BT])
        rows = enumerate(batch.sequence_ids_B.tolist())
        found[name] = {sequence: both[:, row, batch.loss_mask_BT[row]] for row, sequence in rows}
    return found


@cache
def on_one(kind: str, family: str) -> dict[str, dict[int, Tensor]]:
    return credit_of(kind, family)


@cache
def on_two(family: str) -> list[dict[str, dict[int, Tensor]]]:
    return run_ranks(2, credit_of, "sharded", family)


def gap(one: dict[int, Tensor], other: dict[int, Tensor]) -> float:
    assert one.keys() == other.keys() and len(one) == 16
    return max(float((value - other[sequence]).abs().max()) for sequence, value in one.items())


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", PARTS)
def test_it_is_that_of_the_merged_model(name: str, family: str) -> None:
    got, want, base = (on_one(kind, family)[name] for kind in ("adapted", "merged", "base"))
    assert gap(got, want) < TOLERANCE
    assert gap(got, base) == 0 if name in BLIND else gap(got, base) > 10 * TOLERANCE, "or nothing is shown of the adapter"


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", PARTS)
def test_it_is_the_same_on_two_ranks_that_share_the_model(name: str, family: str) -> None:
    first, second = (rank[name] for rank in on_two(family))
    assert not first.keys() & second.keys()
    assert gap(first | second, on_one("merged", family)[name]) < TOLERANCE
