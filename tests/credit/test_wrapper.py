"""What all wrappers do alike: pass on answers, nest in each other, mask what is inside."""

from __future__ import annotations

import itertools

import pytest
import torch

from delta_lightning.credit import (
    Clip,
    Compose,
    Delta,
    Flip,
    Mask,
    NegativeOnly,
    Normalise,
    PositiveOnly,
    Schedule,
    SequenceMean,
    Shuffle,
    Uniform,
)  # fmt: skip
from delta_lightning.credit.wrapper import Wrapper
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.testing.laws import check_credit, concrete_parts
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import mixed
from delta_lightning.types import Credit
from support.toy_credit import Answers, Shifting, answers

WRAPPERS: list[type[Wrapper]] = [
    Clip, Flip, Mask, NegativeOnly, Normalise, PositiveOnly, Schedule, SequenceMean, Shuffle,
]  # fmt: skip
OWN_ANSWERS = {"Mask": {"token_level", "additive"}, "SequenceMean": {"token_level"}, "Shuffle": {"token_level"}}


def wrap(cls: type[Wrapper], assigner: CreditAssigner) -> CreditAssigner:
    """With every other field at its default, but for what would do nothing or be refused."""
    if cls is Schedule:
        return Schedule(assigner=assigner, ramp_steps=0)
    if cls is Mask and assigner.additive():
        return Mask(assigner=assigner, keep="random")
    return cls(assigner=assigner)


def test_no_wrapper_is_missing() -> None:
    assert {part for part in concrete_parts(CreditAssigner) if issubclass(part, Wrapper)} == set(WRAPPERS)


@pytest.mark.parametrize("cls", WRAPPERS)
@pytest.mark.parametrize("value", [True, False])
def test_answers_are_passed_on(cls: type[Wrapper], value: bool) -> None:
    if cls is Mask and value:
        pytest.skip("refuses additive credit; its answers are in test_mask")
    inner = Answers(value=value)
    got, wanted = answers(wrap(cls, inner)), answers(inner)
    own = OWN_ANSWERS.get(cls.__name__, set())
    assert {key: one for key, one in got.items() if key not in own} == {k: v for k, v in wanted.items() if k not in own}


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(WRAPPERS, WRAPPERS)))
def test_any_wrapper_goes_around_any_other(outer: type[Wrapper], inner: type[Wrapper]) -> None:
    """All laws, by turns around Delta and around credit with a shift."""
    odd = (WRAPPERS.index(outer) + WRAPPERS.index(inner)) % 2
    part = wrap(outer, wrap(inner, Shifting() if odd else Delta()))
    of_inner = inner is not SequenceMean
    assert part.token_level() == {SequenceMean: False, Mask: True, Shuffle: True}.get(outer, of_inner)
    check_credit(part)


def test_five_deep() -> None:
    part = Normalise(
        assigner=Clip(
            assigner=Compose(
                assigners=(
                    PositiveOnly(assigner=Shuffle(scope="sequence")),
                    Flip(assigner=Schedule(assigner=Mask(share=0.8), ramp_steps=0)),
                )
            ),
            low=0.1,
        ),
        scope="group",
    )
    check_credit(part)
    assert part.needs() == Delta().needs() and part.per_response() and not part.additive()


@pytest.mark.parametrize("cls", WRAPPERS)
def test_nothing_leaks_out_of_the_mask_or_carries_a_gradient(cls: type[Wrapper]) -> None:
    class Sloppy(Uniform):
        def credit(self, view: StepView) -> Credit:
            return Credit(scale_BT=torch.full(view.batch.loss_mask_BT.shape, 0.7, requires_grad=True))

    view = View(mixed())
    scale_BT = wrap(cls, Sloppy()).credit(view).scale_BT
    assert not scale_BT.requires_grad
    assert not bool(scale_BT[~view.batch.loss_mask_BT].any())


@pytest.mark.parametrize("cls", WRAPPERS)
def test_an_additive_assigner_without_a_shift_this_time_is_one_with_none(cls: type[Wrapper]) -> None:
    """Else ranks would differ in the number of their collectives."""

    class Silent(Shifting):
        def credit(self, view: StepView) -> Credit:
            return Credit(scale_BT=view.batch.loss_mask_BT.float())

    shift_BT = wrap(cls, Silent()).credit(View(mixed())).shift_BT
    assert (shift_BT is None) == (cls is Mask)
    assert shift_BT is None or not bool(shift_BT.any())


def test_draws_differ_by_part_and_number() -> None:
    """A selection at random by the numbers that shuffle it would be none."""

    class Noting(View):
        def uniform(self, purpose: str) -> torch.Tensor:
            seen.append(tuple(super().uniform(purpose)[self.batch.loss_mask_BT].tolist()))
            return super().uniform(purpose)

    seen: list[tuple[float, ...]] = []
    for draw in (0, 1):
        for part in (Mask(keep="random", draw=draw), Shuffle(assigner=Uniform(), draw=draw)):
            part.credit(Noting(mixed()))
    assert len(seen) == len(set(seen)) == 4
