from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Clip, Compose, Delta, Mask, Normalise, Shuffle, Uniform
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import degenerate, mixed
from delta_lightning.types import Credit, Need
from support.toy_credit import Answers, Shifting, answers, of_tokens

ADDING = Shuffle(assigner=Shifting())
LISTS: list[tuple[CreditAssigner, ...]] = [
    (Delta(),), (Delta(), Delta(refinements=0)), (Uniform(), Delta()), (Delta(), Shifting()), (Shifting(), Delta()),
    (Shifting(), Delta(), ADDING), (ADDING, Shifting(), Clip(), Mask(keep="random")),
]  # fmt: skip


def applied(parts: tuple[CreditAssigner, ...], view: View) -> list[float]:
    """The token advantages, one assigner after another."""
    mask_BT = view.batch.loss_mask_BT
    values = view.world.advantages.double()[:, None].expand(mask_BT.shape)[mask_BT].tolist()
    for part in parts:
        credit = part.credit(view)
        scales = of_tokens(credit.scale_BT, view)
        shifts = [0.0] * len(scales) if credit.shift_BT is None else of_tokens(credit.shift_BT, view)
        values = [scale * value + shift for scale, value, shift in zip(scales, values, shifts, strict=True)]
    return values


def token_advantages(credit: Credit, view: View) -> torch.Tensor:
    shift_BT = 0 if credit.shift_BT is None else credit.shift_BT
    return credit.scale_BT * view.world.advantages.double()[:, None] + shift_BT


@pytest.mark.parametrize("parts", LISTS, ids=lambda parts: "-".join(type(part).__name__ for part in parts))
def test_is_one_after_another_and_obeys_the_laws(parts: tuple[CreditAssigner, ...]) -> None:
    check_credit(Compose(assigners=parts))
    for seed in range(3):
        view = View(mixed(seed=seed))
        got = token_advantages(Compose(assigners=parts).credit(view), view)
        assert of_tokens(got, view) == pytest.approx(applied(parts, view), rel=1e-12, abs=1e-12)
        assert not bool(got[~view.batch.loss_mask_BT].any())


def same(one: CreditAssigner, other: CreditAssigner) -> bool:
    view = View(mixed())
    return torch.allclose(
        token_advantages(one.credit(view), view), token_advantages(other.credit(view), view), rtol=0, atol=1e-12
    )


def test_nesting_does_not_matter_and_order_does_with_shifts() -> None:
    a, b, c = Shifting(), Delta(low=0.5), ADDING
    flat = Compose(assigners=(a, b, c))
    assert same(flat, Compose(assigners=(Compose(assigners=(a, b)), c)))
    assert same(flat, Compose(assigners=(a, Compose(assigners=(b, c)))))
    assert same(Compose(assigners=(a, Uniform())), a) and same(Compose(assigners=(Uniform(), a)), a)
    assert not same(Compose(assigners=(a, b)), Compose(assigners=(b, a)))
    plain = (Delta(), Delta(low=0.5, refinements=0))
    assert same(Compose(assigners=plain), Compose(assigners=plain[::-1]))


def test_members_see_raw_advantages() -> None:
    """Delta after a shift that turns signs computes what it computes alone."""
    view = View(mixed())
    turned = Compose(assigners=(Shifting(), Delta())).credit(view).scale_BT / Shifting().credit(view).scale_BT.clamp(min=1e-9)
    torch.testing.assert_close(turned, Delta().credit(view).scale_BT, rtol=0, atol=1e-12)


def test_mean_one_again_with_normalise() -> None:
    view = View(mixed())
    part = Compose(assigners=(Delta(), Delta(refinements=0)))
    tokens = int(view.batch.loss_mask_BT.sum())
    assert float(part.credit(view).scale_BT.sum()) != pytest.approx(tokens, rel=1e-6)
    assert float(Normalise(assigner=part).credit(view).scale_BT.sum()) == pytest.approx(tokens, rel=1e-12)


def test_says_what_any_member_says() -> None:
    loud, quiet = Answers(value=True), Answers(value=False)
    assert answers(Compose(assigners=(quiet, loud))) == answers(loud)
    assert answers(Compose(assigners=(quiet, quiet))) == answers(quiet)
    assert Compose(assigners=(Delta(), Shifting())).needs() == {Need.HIDDEN, Need.ENTROPY}


def test_a_list_becomes_a_tuple_and_an_empty_one_is_refused() -> None:
    assert Compose(assigners=[Delta()]) == Compose(assigners=(Delta(),))  # type: ignore[arg-type]
    assert isinstance(hash(Compose(assigners=[Delta()])), int)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"credit.Compose.assigners: wanted at least one"):
        Compose(assigners=())


def test_degenerate_batches_are_uniform_under_delta() -> None:
    part = Compose(assigners=(Delta(), Delta(low=0.5)))
    for name in ("no advantage", "positive side only", "negative side only", "one token", "all tokens masked", "no rows"):
        world = degenerate()[name]
        assert torch.equal(part.credit(View(world)).scale_BT, world.batch.loss_mask_BT.double()), name


def test_a_single_member_outside_the_mask_is_masked() -> None:
    class Leaky(Uniform):
        def credit(self, view: StepView) -> Credit:
            return Credit(scale_BT=torch.ones(view.batch.loss_mask_BT.shape))

    view = View(mixed())
    assert torch.equal(Compose(assigners=(Leaky(),)).credit(view).scale_BT, view.batch.loss_mask_BT.float())
