from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from delta_lightning.credit import Delta, Uniform
from delta_lightning.credit.proxies import HiddenGradient, OutputRow
from delta_lightning.errors import ConfigError
from delta_lightning.functional.delta import geometric_median
from delta_lightning.functional.feature_geometry import FeatureGeometry
from delta_lightning.functional.sides import Sides
from delta_lightning.testing.laws import CUTS, check_credit
from delta_lightning.testing.views import ThreadRank, View, run_ranks
from delta_lightning.testing.worlds import Scored, degenerate, golden, mixed
from delta_lightning.types import Need, TokenScores
from support import reference, reference_delta

GOLDEN = [1.066752, 0.889945, 1.068494, 0.889945, 1.115920, 1.139104, 1.074668, 0.991378, 0.763793]


def reference_credit(world: Scored, part: Delta) -> Tensor:
    """The coefficients by the NumPy reference, from v = (1 - exp(log p)) h written out."""
    mask_BT = world.batch.loss_mask_BT
    proxies = [
        (1 - world.logprobs_BT[row, t].exp().item()) * world.hidden_BTD[row, t].double().numpy()
        for row, t in mask_BT.nonzero().tolist()
    ]
    advantages = [float(world.advantages[row]) for row, _ in mask_BT.nonzero().tolist()]
    coefficients = reference.delta(proxies, advantages, refinements=part.refinements, low=part.low, high=part.high)
    scale_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    scale_BT[mask_BT] = torch.from_numpy(coefficients)
    return scale_BT


def test_golden_vector() -> None:
    world = golden()
    credit = Delta().credit(View(world, cuts=[slice(0, 1), slice(1, 4)]))
    torch.testing.assert_close(credit.scale_BT[world.batch.loss_mask_BT], torch.tensor(GOLDEN).double(), rtol=0, atol=1e-6)
    assert credit.shift_BT is None


@pytest.mark.parametrize("part", [Delta(), Delta(refinements=0), Delta(refinements=3, low=0.5, high=1.5), Delta(low=0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_reference(part: Delta, dtype: torch.dtype, tolerance: float) -> None:
    for seed in range(5):
        world = mixed(dtype, seed=seed)
        scale_BT = part.credit(View(world)).scale_BT
        assert scale_BT.dtype == dtype
        torch.testing.assert_close(scale_BT.double(), reference_credit(world, part), rtol=tolerance, atol=tolerance)


def test_hidden_states_in_bfloat16_are_scaled_in_float32() -> None:
    world = mixed(torch.float32)
    rounded = replace(world, hidden_BTD=world.hidden_BTD.bfloat16())
    scale_BT = Delta().credit(View(rounded)).scale_BT
    assert scale_BT.dtype == torch.float32
    wanted = reference_credit(replace(world, hidden_BTD=rounded.hidden_BTD.float()), Delta())
    torch.testing.assert_close(scale_BT.double(), wanted, rtol=1e-5, atol=1e-5)


def test_mean_over_trained_tokens_is_one_and_zero_advantages_get_the_least() -> None:
    world = mixed()
    mask_BT = world.batch.loss_mask_BT
    scale_BT = Delta().credit(View(world)).scale_BT
    assert float(scale_BT[mask_BT].mean()) == pytest.approx(1, abs=1e-12)
    idle_BT = mask_BT & (world.advantages == 0)[:, None]
    assert len(scale_BT[idle_BT].unique()) == 1
    assert float(scale_BT[idle_BT].max()) <= float(scale_BT[mask_BT].min())


class NoHidden(View):
    """A view whose scoring pass computed no hidden states."""

    def passes(self) -> Iterator[tuple[slice, TokenScores]]:
        for rows, scores in super().passes():
            yield rows, replace(scores, hidden_ND=None)


@pytest.mark.parametrize("bound", [0.3, 0.8, 1.0, 1.2])
def test_equal_bounds_are_uniform_bitwise_and_need_nothing(bound: float) -> None:
    part, view = Delta(low=bound, high=bound), NoHidden(mixed())
    assert torch.equal(part.credit(view).scale_BT, Uniform().credit(view).scale_BT)
    assert part.needs() == frozenset()
    assert not part.token_level()


@pytest.mark.parametrize("side", [-1.0, 0.0, 1.0])
def test_one_side_alone_is_uniform(side: float) -> None:
    world = mixed()
    view = View(world.with_advantages(world.advantages.abs() * side))
    assert torch.equal(Delta().credit(view).scale_BT, Uniform().credit(view).scale_BT.double())


def test_needs_hidden_states_and_is_token_level() -> None:
    assert Delta().needs() == {Need.HIDDEN}
    assert Delta().token_level()
    assert not Delta().cut_dependent()
    with pytest.raises(ValueError, match="with hidden states"):
        Delta().credit(NoHidden(mixed()))


class LateAdvantages(View):
    @property
    def advantages(self) -> Tensor | None:
        return None


def test_refuses_advantages_that_it_cannot_use() -> None:
    world = mixed()
    with pytest.raises(ConfigError, match=r"one advantage per response, \[B\], got .*\[12, 9\]"):
        Delta().credit(View(world.with_advantages(torch.zeros(world.batch.loss_mask_BT.shape))))
    with pytest.raises(ValueError, match="before credit is assigned"):
        Delta().credit(LateAdvantages(world))


def test_refuses_scores_that_do_not_fit_the_rows() -> None:
    world = mixed()
    with pytest.raises(ValueError, match="rows in order"):
        Delta().credit(View(world, cuts=[slice(6, 12), slice(0, 6)]))

    class Short(View):
        def passes(self) -> Iterator[tuple[slice, TokenScores]]:
            for rows, scores in super().passes():
                assert scores.hidden_ND is not None
                yield rows, replace(scores, hidden_ND=scores.hidden_ND[1:])

    with pytest.raises(ValueError, match="hidden states for"):
        Delta().credit(Short(world, cuts=CUTS["uneven"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"refinements": -1}, "credit.refinements"),
        ({"low": -0.1}, "credit.low"),
        ({"low": 0.0, "high": 0.0}, "credit.high"),
        ({"low": 1.3}, r"at most credit.high \(1.2\), got 1.3"),
        ({"low": float("nan")}, "credit.low"),
        ({"high": float("nan")}, "credit.high"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Delta(**fields)  # type: ignore[arg-type]


def test_defaults_are_the_published_method() -> None:
    published = Delta(
        refinements=1, low=0.8, high=1.2, proxy=OutputRow(), evidence="margin", gamma="lagged", gate="soft", centroid="mean",
        normaliser="mean_one", scope="all_ranks",
    )  # fmt: skip
    assert Delta() == published


# ------------------------------------------------------------------------------------------------------------ ablations

ABLATIONS: list[dict[str, Any]] = [
    {"evidence": "within_side"},
    {"evidence": "within_side", "gamma": "first_distance"},
    {"gamma": "first_spread", "refinements": 3},
    {"gamma": "first_distance"},
    {"gamma": "first_distance", "refinements": 2},
    {"gate": "hard"},
    {"gate": "hard", "refinements": 3},
    {"normaliser": "none"},
    {"low": 0.0, "high": 1.0},
    {"centroid": "geometric_median", "median_steps": 7},
    {"centroid": "geometric_median", "evidence": "within_side", "gate": "soft", "normaliser": "none", "refinements": 2},
]
SCOPES = ["all_ranks", "group", "rank"]


def name_of(fields: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in fields.items())


def by_reference(world: Scored, fields: dict[str, Any], units_B: list[int] | None = None) -> Tensor:
    """[B, T] from v = (1 - exp(log p)) h; `units_B` is the unit of each row."""
    mask_BT = world.batch.loss_mask_BT
    tokens = mask_BT.nonzero().tolist()
    vectors = [(1 - math.exp(world.logprobs_BT[row, t])) * world.hidden_BTD[row, t].double().numpy() for row, t in tokens]
    advantages = [float(world.advantages[row]) for row, _ in tokens]
    units = [0 if units_B is None else units_B[row] for row, _ in tokens]
    out = torch.zeros(mask_BT.shape, dtype=torch.float64)
    out[mask_BT] = torch.from_numpy(reference_delta.in_units(vectors, advantages, units, **fields))
    return out


@pytest.mark.parametrize("fields", ABLATIONS, ids=name_of)
def test_ablations_equal_the_reference(fields: dict[str, Any]) -> None:
    for seed in range(3):
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
            world = mixed(dtype, seed=seed)
            scale_BT = Delta(**fields).credit(View(world)).scale_BT
            assert scale_BT.dtype == dtype
            torch.testing.assert_close(scale_BT.double(), by_reference(world, fields), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("scope", ["group", "all_ranks"])
@pytest.mark.parametrize("fields", ABLATIONS, ids=name_of)
def test_ablations_obey_the_laws(fields: dict[str, Any], scope: str) -> None:
    check_credit(Delta(**fields, scope=scope))  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", ABLATIONS, ids=name_of)
def test_ablations_change_the_result(fields: dict[str, Any]) -> None:
    world = mixed()
    plain = Delta(refinements=fields.get("refinements", 1)).credit(View(world)).scale_BT
    assert not torch.allclose(Delta(**fields).credit(View(world)).scale_BT, plain, rtol=0, atol=1e-4)


def test_the_published_description_of_fixed_gamma_is_the_method_itself_at_one_refinement() -> None:
    """The lagged rule takes gamma of refinement 1 from the margins of refinement 0."""
    for k in (0, 1):
        kept, lagged = Delta(gamma="first_spread", refinements=k), Delta(refinements=k)
        assert torch.equal(kept.credit(View(mixed())).scale_BT, lagged.credit(View(mixed())).scale_BT)


def test_without_normalisation_the_range_is_that_of_the_fields() -> None:
    world = mixed()
    scale_BT = Delta(normaliser="none").credit(View(world)).scale_BT
    mask_BT = world.batch.loss_mask_BT
    assert float(scale_BT[mask_BT].min()) >= 0.8 and float(scale_BT[mask_BT].max()) <= 1.2
    assert bool((scale_BT[mask_BT & (world.advantages == 0)[:, None]] == 0.8).all())
    assert bool((Delta(normaliser="none", low=0.9, high=0.9).credit(View(world)).scale_BT[mask_BT] == 0.9).all())


def test_hard_gates_take_two_values_and_ties_one_in_between() -> None:
    world = mixed()
    sided_BT = world.batch.loss_mask_BT & (world.advantages != 0)[:, None]
    part = Delta(gate="hard", normaliser="none")
    assert set(part.credit(View(world)).scale_BT[sided_BT].tolist()) == {0.8, 0.8 + (1.2 - 0.8)}
    alike = degenerate()["identical tokens"]
    torch.testing.assert_close(part.credit(View(alike)).scale_BT[sided_BT].unique(), torch.tensor([1.0]).double())


def test_a_geometric_median_shrugs_off_an_outlier() -> None:
    """One token of the positive side a thousand times as far out: the mean follows it, the median hardly moves."""
    features = torch.tensor([[1.0, 0.0], [1.1, 0.1], [0.9, -0.1], [1.0, 0.2], [1000.0, 0.0], [-1.0, 0.0], [-1.0, 0.1]]).double()
    advantages = torch.tensor([1.0, 1, 1, 1, 1, -1, -1]).double()
    geometry = FeatureGeometry(lambda: [features], Sides(advantages))
    mean_2N = geometry.sides.weights_2N
    median_2N = geometric_median(40)(geometry, mean_2N)
    mean, median = ((weights[0] @ features) / weights[0].sum() for weights in (mean_2N, median_2N))
    assert float(mean[0]) > 200
    assert float((median - torch.tensor([1.0, 0.05]).double()).norm()) < 0.2


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("part", [Delta(), Delta(proxy=HiddenGradient()), Delta(centroid="geometric_median")])
def test_scopes_agree_on_one_group_on_one_rank(scope: str, part: Delta) -> None:
    world = mixed()
    one = replace(world, batch=replace(world.batch, group_ids_B=world.batch.group_ids_B * 0 + 17))
    other = replace(part, scope=scope)
    torch.testing.assert_close(other.credit(View(one)).scale_BT, part.credit(View(one)).scale_BT, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fields", [{}, {"refinements": 3}, *ABLATIONS], ids=name_of)
def test_group_scope_is_the_method_on_each_group(fields: dict[str, Any]) -> None:
    """Groups 0 and 2 have two sides; group 1 has advantages of 0 only and gets 1, where all ranks together would give less."""
    world = mixed()
    scale_BT = Delta(**fields, scope="group").credit(View(world)).scale_BT
    wanted = by_reference(world, fields, world.batch.group_ids_B.tolist())
    torch.testing.assert_close(scale_BT, wanted, rtol=0, atol=1e-10)
    idle_BT = world.batch.loss_mask_BT & (world.batch.group_ids_B == 1)[:, None]
    assert bool((scale_BT[idle_BT] == 1).all())
    assert float(Delta().credit(View(world)).scale_BT[idle_BT].max()) < 0.9


def over_ranks(part: Delta, world: Scored, parts: list[Tensor]) -> Tensor:
    def work(rank: int, ranks: ThreadRank) -> Tensor:
        return part.credit(View(world.rows(parts[rank]), ranks=ranks)).scale_BT

    return torch.cat(run_ranks(len(parts), work))[torch.cat(parts).argsort()]


def test_rank_scope_is_the_method_on_each_rank() -> None:
    """It depends on the number of ranks, says so, and one rank's empty side concerns no other rank."""
    world = mixed()
    part = Delta(scope="rank")
    assert part.cut_dependent() and not Delta(scope="group").cut_dependent()
    assert not Delta(scope="rank", low=1.0, high=1.0).cut_dependent()
    rank_of = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 2, 0])  # rank 2 has one row
    parts = [(rank_of == rank).nonzero()[:, 0] for rank in range(4)]  # and rank 3 none
    got = over_ranks(part, world, parts)
    torch.testing.assert_close(got, by_reference(world, {}, rank_of.tolist()), rtol=0, atol=1e-10)
    assert bool((got[10] == world.batch.loss_mask_BT[10]).all())
    assert not torch.allclose(got, part.credit(View(world)).scale_BT, atol=1e-3)
    torch.testing.assert_close(part.credit(View(world)).scale_BT, Delta().credit(View(world)).scale_BT)


@pytest.mark.parametrize("scope", SCOPES)
def test_ranks_agree_to_do_nothing(scope: str) -> None:
    """A rank alone would skip the passes that another rank makes; here none has two sides, and none reads a hidden state."""
    world = mixed()
    one_sided = world.with_advantages(world.advantages.abs())
    parts = [torch.arange(0, 6), torch.arange(6, 12)]

    def work(rank: int, ranks: ThreadRank) -> Tensor:
        view = NoHidden(one_sided.rows(parts[rank]), ranks=ranks)
        return Delta(scope=scope).credit(view).scale_BT  # type: ignore[arg-type]

    got = torch.cat(run_ranks(2, work))
    assert torch.equal(got, world.batch.loss_mask_BT.float())


class CountedPasses(View):
    """Counts how often the scores were read."""

    count = 0

    def passes(self) -> Iterator[tuple[slice, TokenScores]]:
        self.count += 1
        return super().passes()


@pytest.mark.parametrize("scope", SCOPES)
def test_ranks_read_their_states_equally_often(scope: str) -> None:
    """One rank has one side only, one has no rows. Under sharding a reading may be a forward pass: nobody may leave early."""
    world = mixed()
    positive = (world.advantages > 0).nonzero()[:, 0]
    others = torch.tensor([row for row in range(12) if row not in positive[1:].tolist()])
    parts = [positive[1:], others, torch.arange(0)]

    def work(rank: int, ranks: ThreadRank) -> int:
        view = CountedPasses(world.rows(parts[rank]), ranks=ranks)
        Delta(scope=scope, proxy=HiddenGradient()).credit(view)  # type: ignore[arg-type]
        return view.count

    assert run_ranks(3, work) == [1, 1, 1]
    counts = run_ranks(3, lambda rank, ranks: _count_default(CountedPasses(world.rows(parts[rank]), ranks=ranks), scope))
    assert counts == [4, 4, 4]


def _count_default(view: CountedPasses, scope: str) -> int:
    Delta(scope=scope).credit(view)  # type: ignore[arg-type]
    return view.count


@pytest.mark.parametrize("name", ["no advantage", "positive side only", "negative side only", "one token"])
@pytest.mark.parametrize("fields", [{"scope": "group"}, {"scope": "rank"}, *ABLATIONS], ids=name_of)
def test_ones_where_a_side_is_empty(name: str, fields: dict[str, Any]) -> None:
    world = degenerate()[name]
    assert torch.equal(Delta(**fields).credit(View(world)).scale_BT, world.batch.loss_mask_BT.float())


def test_per_response() -> None:
    assert Delta().per_response()
    assert not Delta().additive()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"median_steps": 0}, "credit.median_steps"),
        ({"evidence": "distance"}, "margin or within_side, got 'distance'"),
        ({"gamma": "fixed"}, "credit.gamma"),
        ({"gate": "softer"}, "credit.gate"),
        ({"centroid": "median"}, "credit.centroid"),
        ({"normaliser": "sum"}, "credit.normaliser"),
        ({"scope": "batch"}, "credit.scope"),
        ({"evidence": "within_side", "gate": "hard"}, "soft gates with within_side"),
    ],
)
def test_refuses_ablations_that_are_none(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Delta(**fields)
