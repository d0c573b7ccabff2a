from __future__ import annotations

from typing import get_args

import pytest
import torch

from delta_lightning.credit import Delta, Mask, Uniform
from delta_lightning.credit.scopes import Scope
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import ThreadRank, View, run_ranks
from delta_lightning.testing.worlds import degenerate, make_batch, mixed, scored
from delta_lightning.types import Need
from support.reference_wrappers import chosen, tokens_of
from support.toy_credit import Answers, Listed, Shifting, of_tokens

SCOPES: list[Scope] = list(get_args(Scope))
KEEPS = ["top", "bottom", "random"]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_equals_the_reference(scope: Scope, keep: str, share: float) -> None:
    for seed in range(3):
        view = View(mixed(seed=seed))
        tokens, scales = tokens_of(view.world), of_tokens(Delta().credit(view).scale_BT, view)
        # As ties: the tokens of advantage 0 have one and the same coefficient, up to rounding.
        scores = {
            "top": [round(scale, 9) for scale in scales],
            "bottom": [-round(scale, 9) for scale in scales],
            "random": of_tokens(view.uniform("credit.Mask 0"), view),
        }[keep]
        kept = chosen(scores, tokens, scope, share)
        for denominator in ("kept", "all"):
            part = Mask(share=share, keep=keep, scope=scope, denominator=denominator)  # type: ignore[arg-type]
            got = of_tokens(part.credit(view).scale_BT, view)
            value = len(kept) / sum(kept) if denominator == "kept" else 1.0
            assert got == pytest.approx([value * one for one in kept], rel=1e-6), denominator


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("keep", KEEPS)
def test_obeys_the_laws(scope: Scope, keep: str) -> None:
    check_credit(Mask(keep=keep, scope=scope))  # type: ignore[arg-type]
    check_credit(Mask(assigner=Uniform(), keep=keep, scope=scope, denominator="all", share=0.2))  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", SCOPES)
def test_mean_is_one_with_kept_and_the_share_with_all(scope: Scope) -> None:
    view = View(mixed())
    kept = of_tokens(Mask(scope=scope).credit(view).scale_BT, view)
    assert sum(kept) / len(kept) == pytest.approx(1, abs=1e-12)
    ones = of_tokens(Mask(scope=scope, denominator="all").credit(view).scale_BT, view)
    assert set(ones) == {0.0, 1.0}
    assert [one > 0 for one in ones] == [one > 0 for one in kept]


@pytest.mark.parametrize("keep", ["top", "bottom"])
def test_ties_go_by_the_global_order_on_any_number_of_ranks(keep: str) -> None:
    """Uniform credit is one great tie; rows come in another order on two ranks."""
    world = mixed()
    part = Mask(assigner=Uniform(), keep=keep, share=0.4, denominator="all")  # type: ignore[arg-type]
    wanted_BT = part.credit(View(world)).scale_BT
    count = int(world.batch.loss_mask_BT.sum())
    first = [1.0] * -(-count * 4 // 10)
    assert of_tokens(wanted_BT, View(world)) == first + [0.0] * (count - len(first))
    parts = [torch.tensor([11, 4, 0, 7, 9]), torch.tensor([3, 2, 10, 1, 8, 6, 5])]

    def work(rank: int, ranks: ThreadRank) -> torch.Tensor:
        return part.credit(View(world.rows(parts[rank]), ranks=ranks)).scale_BT

    got_BT = torch.cat(run_ranks(2, work))[torch.cat(parts).argsort()]
    assert torch.equal(got_BT, wanted_BT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_does_not_choose(dtype: torch.dtype) -> None:
    """Six scales that a different order of summation could have parted."""
    view = View(scored(make_batch([6], rewards=[1], groups=[0]), [1.0]))
    step = {torch.float32: 2.0**-22, torch.float64: 2.0**-50}[dtype]
    for signs in ([1, -1, 1, -1, 1, -1], [-1, 1, -1, 1, -1, 1]):
        part = Mask(assigner=Listed(scales=[1 + sign * step for sign in signs], dtype=dtype), denominator="all")
        assert of_tokens(part.credit(view).scale_BT, view) == [1, 1, 1, 0, 0, 0]


def test_top_and_bottom_halves_are_each_others_complement() -> None:
    world = scored(make_batch([3, 3], rewards=[1, 0], groups=[0, 0]), [1.0, -1.0])
    view, part = View(world), Listed(scales=[0.8, 1.2, 1.0, 0.9, 1.1, 1.3])
    top = of_tokens(Mask(assigner=part).credit(view).scale_BT, view)
    bottom = of_tokens(Mask(assigner=part, keep="bottom").credit(view).scale_BT, view)
    assert top == [0, 2, 0, 0, 2, 2]
    assert bottom == [2, 0, 2, 2, 0, 0]


def test_the_bottom_of_the_batch_is_made_of_tokens_that_train_nothing() -> None:
    """DelTA's least coefficient is that of A = 0; ranking within sides keeps as many tokens of either side as top does."""
    world = mixed()
    idle = [token.advantage == 0 for token in tokens_of(world)]
    bottom = of_tokens(Mask(keep="bottom", share=sum(idle) / len(idle)).credit(View(world)).scale_BT, View(world))
    assert [value > 0 for value in bottom] == idle
    sided = of_tokens(Mask(keep="bottom", scope="side").credit(View(world)).scale_BT, View(world))
    assert sum(value > 0 for value, one in zip(sided, idle, strict=True) if not one) >= (len(idle) - sum(idle)) / 2


def test_draws_differ_by_number_and_repeat() -> None:
    view = View(mixed())
    one, again, other = (Mask(keep="random", draw=draw).credit(view).scale_BT for draw in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_random_and_whole_shares_ask_nobody() -> None:
    inner = Answers(value=True)
    for part in (Mask(assigner=inner, keep="random"), Mask(assigner=inner, keep="random", share=1.0), Mask(share=1.0)):
        assert part.needs() == frozenset() and not part.cut_dependent() and not part.per_response() and not part.additive()
        part.credit(View(mixed()))
    assert inner.calls == []
    ranked = Mask(assigner=Answers(value=False))
    assert ranked.token_level() and not Mask(share=1.0).token_level()
    assert Mask(assigner=Delta(scope="rank")).cut_dependent()
    assert Mask().needs() == {Need.HIDDEN} and Mask().per_response()
    view = View(mixed())
    assert torch.equal(Mask(share=1.0).credit(view).scale_BT, Uniform().credit(view).scale_BT)


def test_degenerate_batches() -> None:
    """Delta gives ones, so the first half stays; without tokens nothing does."""
    for scope in SCOPES:
        worlds = degenerate()
        view = View(worlds["one token"])
        assert of_tokens(Mask(scope=scope).credit(view).scale_BT, view) == [1.0]
        for name in ("all tokens masked", "no rows"):
            assert not bool(Mask(scope=scope).credit(View(worlds[name])).scale_BT.any())
    view = View(degenerate()["positive side only"])
    got = of_tokens(Mask(denominator="all").credit(view).scale_BT, view)
    assert got == [1.0] * -(-len(got) // 2) + [0.0] * (len(got) // 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 0}, "credit.Mask.share"),
        ({"share": 1.1}, "credit.Mask.share"),
        ({"share": float("nan")}, "credit.Mask.share"),
        ({"keep": "op"}, "credit.Mask.keep: wanted top, bottom or random"),
        ({"scope": "rank"}, "credit.Mask.scope"),
        ({"denominator": "sum"}, "credit.Mask.denominator"),
        ({"assigner": Shifting()}, "credit.Mask.assigner: .*Shifting, which adds"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mask(**fields)  # type: ignore[arg-type]


def test_takes_an_additive_assigner_if_it_is_not_asked() -> None:
    assert not Mask(assigner=Shifting(), keep="random").additive()
    assert Mask(assigner=Shifting(), keep="random").credit(View(mixed())).shift_BT is None
