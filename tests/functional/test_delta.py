"""DelTA's coefficients: the golden vector, an independent reference, every invariant of the method, and its streaming form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from delta_lightning.functional.delta import (
    delta_coefficients,
    normalise,
    range_map,
    soft_gate,
    stream_coefficients,
)
from delta_lightning.functional.delta import gates as gates_of
from delta_lightning.functional.feature_geometry import FeatureGeometry
from delta_lightning.functional.feature_geometry import centroids as centroids_of
from delta_lightning.functional.sides import Sides, row_blocks
from delta_lightning.functional.sides import side_std as side_std_of
from delta_lightning.testing.views import ThreadRank, run_ranks
from support import reference

V = torch.tensor(
    [[1, 0], [0, 0.2], [0.8, 0.8], [0, 0.2], [1.2, 1.2], [-0.7, 0.7], [0, 0.2], [0.4, -0.4], [1.5, 0.5]], dtype=torch.float64
)
A = torch.tensor([1, 1, 1, 0.5, 0.5, -1.5, -1.5, -1.5, 0], dtype=torch.float64)
GOLDEN = {
    0: [1.052583, 0.916820, 1.063624, 0.916820, 1.110386, 1.129039, 1.047113, 0.995114, 0.768502],
    1: [1.066752, 0.889945, 1.068494, 0.889945, 1.115920, 1.139104, 1.074668, 0.991378, 0.763793],
    2: [1.059165, 0.907038, 1.060122, 0.907038, 1.110611, 1.134814, 1.056980, 0.992915, 0.771317],
    3: [1.058821, 0.913070, 1.059523, 0.913070, 1.109314, 1.132384, 1.051602, 0.989477, 0.772739],
}


def near(got: Tensor, wanted: object, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(got, torch.as_tensor(np.asarray(wanted), dtype=got.dtype), rtol=tolerance, atol=tolerance)


def margins(features: Tensor, weights_2N: Tensor, advantages: Tensor) -> Tensor:
    return FeatureGeometry(lambda: [features], Sides(advantages)).margins(weights_2N)


def own(margins_N: Tensor, advantages: Tensor) -> Tensor:
    return torch.where(advantages > 0, margins_N, -margins_N)


def side_std(margins_N: Tensor, advantages: Tensor) -> Tensor:
    return side_std_of(margins_N, Sides(advantages))[:, 0]


def gates(margins_N: Tensor, advantages: Tensor, gammas_2: Tensor) -> Tensor:
    return gates_of(own(margins_N, advantages), gammas_2[:, None], Sides(advantages), soft_gate)


def mean_one(values_N: Tensor) -> Tensor:
    return normalise(values_N, Sides(torch.ones_like(values_N)))


def side_weights(advantages: Tensor) -> Tensor:
    return Sides(advantages).weights_2N


def centroids(features: Tensor, weights_2N: Tensor) -> Tensor:
    return centroids_of(lambda: [features], weights_2N, Sides(torch.ones_like(weights_2N[0])))[:, 0]


@st.composite
def tokens(draw: st.DrawFn, *, both_sides: bool = True) -> tuple[Tensor, Tensor]:
    """Features [N, D] and advantages [N], zero advantages among them."""
    n, d = draw(st.integers(2, 24)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features = rng.normal(size=(n, d)) * rng.uniform(0.1, 3)
    advantages = rng.choice([-1.7, -0.4, 0.0, 0.3, 1.2], size=n)
    if both_sides:
        advantages[:2] = [0.8, -0.6]
    return torch.from_numpy(features), torch.from_numpy(advantages)


refinements = st.integers(0, 4)
quick = settings(max_examples=40, deadline=None, derandomize=True)


# ------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("k", GOLDEN)
def test_golden_vector(k: int) -> None:
    near(delta_coefficients(V, A, refinements=k), GOLDEN[k], 1e-6)
    near(delta_coefficients(V.float(), A.float(), refinements=k), GOLDEN[k], 2e-6)


@pytest.mark.parametrize("k", GOLDEN)
def test_golden_vector_of_the_reference(k: int) -> None:
    np.testing.assert_allclose(reference.delta(V.numpy(), A.numpy(), refinements=k), GOLDEN[k], atol=1e-6)


def test_golden_intermediate_values() -> None:
    weights_2N = side_weights(A)
    near(centroids(V, weights_2N), [[0.6, 0.425], [-0.1, 0.1666666667]], 1e-9)
    m = margins(V, weights_2N, A)
    near(m[:8], [0.897153, -0.399514, 1.030486, -0.399514, 1.797153, -1.121181, -0.399514, -0.149514], 1e-6)
    gamma = side_std(m, A)
    near(gamma, [0.860668, 0.411965], 1e-6)
    alpha = gates(m, A, gamma)
    near(alpha, [0.739311, 0.385992, 0.768046, 0.385992, 0.889740, 0.938286, 0.725075, 0.589749, 0], 1e-6)
    near(centroids(V, weights_2N * alpha), [[0.745726, 0.499396], [-0.186809, 0.251171]], 1e-6)
    refined = margins(V, weights_2N * alpha, A)
    near(refined[:8], [1.157550, -0.608229, 1.181696, -0.608229, 2.126304, -1.665551, -0.608229, -0.160071], 1e-6)
    coefficients = range_map(gates(refined, A, gamma), low=0.8, high=1.2)
    near(coefficients[[0, 4, 5, 8]], [1.117321, 1.168820, 1.193103, 0.8], 1e-6)
    assert float(coefficients.sum()) == pytest.approx(9.426638, abs=1e-6)
    near(mean_one(coefficients), GOLDEN[1], 1e-6)


def test_golden_toy_of_five_tokens() -> None:
    """Margins about unweighted centroids, and gamma by the population standard deviation."""
    features = torch.tensor([[1, 0], [0.8, 0.2], [0, 1], [0.1, 0.9], [0.5, 0.5]], dtype=torch.float64)
    advantages = torch.tensor([1, 1, -1, -1, 1], dtype=torch.float64)
    weights_2N = side_weights(advantages)
    near(centroids(features, weights_2N), [[0.766667, 0.233333], [0.05, 0.95]], 1e-6)
    m = margins(features, weights_2N, advantages)
    near(own(m, advantages), [1.696111, 1.122778, 1.170556, 0.883889, 0.262778], 1e-6)
    near(side_std(m, advantages), [0.589044, 0.143333], 1e-6)


@quick
@given(tokens(both_sides=False), refinements, st.sampled_from([(0.8, 1.2), (0.0, 1.0), (0.5, 1.5)]))
def test_equals_the_distance_form(data: tuple[Tensor, Tensor], k: int, bounds: tuple[float, float]) -> None:
    features, advantages = data
    wanted = reference.delta(features.numpy(), advantages.numpy(), refinements=k, low=bounds[0], high=bounds[1])
    near(delta_coefficients(features, advantages, refinements=k, low=bounds[0], high=bounds[1]), wanted, 1e-9)


@pytest.mark.parametrize(("fraction", "factor"), [(0.25, 1.053), (0.5, 1.111), (0.75, 1.176)])
def test_zero_advantage_tokens_raise_the_others(fraction: float, factor: float) -> None:
    """N/Z = 1 / (0.8 f + m (1 - f)), with m = 1: a share f of tokens without advantage."""
    zeros = round(400 * fraction)
    values = torch.cat([torch.full((zeros,), 0.8), torch.ones(400 - zeros)]).double()
    assert float(mean_one(values)[-1]) == pytest.approx(factor, abs=5e-4)


# ---------------------------------------------------------------------------------------------------- invariants


@quick
@given(tokens())
def test_one_refinement_leaves_gamma_alone(data: tuple[Tensor, Tensor]) -> None:
    """K = 1 with gamma recomputed by the lagged rule is K = 1 with the first gamma, exactly."""
    features, advantages = data
    weights_2N = side_weights(advantages)
    first = margins(features, weights_2N, advantages)
    gamma = side_std(first, advantages)
    last = gates(margins(features, weights_2N * gates(first, advantages, gamma), advantages), advantages, gamma)
    assert torch.equal(mean_one(range_map(last, low=0.8, high=1.2)), delta_coefficients(features, advantages))


@quick
@given(tokens())
def test_mean_own_margin_is_the_squared_distance_of_the_centroids(data: tuple[Tensor, Tensor]) -> None:
    features, advantages = data
    weights_2N = side_weights(advantages)
    mu = centroids(features, weights_2N)
    m = margins(features, weights_2N, advantages)
    near((weights_2N * torch.stack([m, -m])).sum(1) / weights_2N.sum(1), (mu[0] - mu[1]).square().sum().expand(2), 1e-9)


@quick
@given(tokens(), refinements, st.integers(0, 2**32 - 1), st.floats(0.5, 10))
def test_invariant_under_similarities_of_the_features(data: tuple[Tensor, Tensor], k: int, seed: int, scale: float) -> None:
    features, advantages = data
    rng = np.random.default_rng(seed)
    width = features.shape[1]
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(width, width)))[0])
    shift = torch.from_numpy(rng.normal(size=width))
    wanted = delta_coefficients(features, advantages, refinements=k)
    near(delta_coefficients(features + shift, advantages, refinements=k), wanted, 1e-8)
    near(delta_coefficients(features @ rotation, advantages, refinements=k), wanted, 1e-8)
    first = margins(features, side_weights(advantages), advantages)
    # The floor of gamma, 1e-4, does not scale: it holds where a side has one token, or tokens all alike.
    if float(side_std(first, advantages).min()) > 0.01:
        near(delta_coefficients(features * scale, advantages, refinements=k), wanted, 1e-8)


@quick
@given(tokens(), refinements, st.floats(0.01, 100))
def test_invariant_under_scale_and_sign_of_the_advantages(data: tuple[Tensor, Tensor], k: int, scale: float) -> None:
    features, advantages = data
    wanted = delta_coefficients(features, advantages, refinements=k)
    near(delta_coefficients(features, advantages * scale, refinements=k), wanted, 1e-9)
    near(delta_coefficients(features, -advantages, refinements=k), wanted, 1e-9)


@quick
@given(tokens(), refinements, st.randoms(use_true_random=False))
def test_permuting_tokens_permutes_coefficients(data: tuple[Tensor, Tensor], k: int, random: object) -> None:
    features, advantages = data
    order = list(range(len(advantages)))
    random.shuffle(order)  # type: ignore[attr-defined]
    near(
        delta_coefficients(features[order], advantages[order], refinements=k),
        delta_coefficients(features, advantages, refinements=k)[order],
        1e-9,
    )


@quick
@given(tokens(both_sides=False), refinements)
def test_mean_is_one_and_the_spread_is_bounded(data: tuple[Tensor, Tensor], k: int) -> None:
    coefficients = delta_coefficients(*data, refinements=k)
    near(coefficients.mean(), 1.0, 1e-12)
    assert float(coefficients.max() / coefficients.min()) <= 1.5 + 1e-12


@quick
@given(tokens(both_sides=False), refinements, st.floats(0.01, 2))
def test_equal_bounds_give_exactly_one(data: tuple[Tensor, Tensor], k: int, bound: float) -> None:
    features, advantages = data
    assert torch.equal(
        delta_coefficients(features, advantages, refinements=k, low=bound, high=bound), torch.ones_like(advantages)
    )


@quick
@given(tokens(), refinements, st.sampled_from([-1, 0, 1]))
def test_an_empty_side_gives_exactly_one(data: tuple[Tensor, Tensor], k: int, side: int) -> None:
    features, advantages = data
    one_sided = advantages.abs() * side
    assert torch.equal(delta_coefficients(features, one_sided, refinements=k), torch.ones_like(advantages))


def test_gamma_is_floored_where_a_side_has_no_variance() -> None:
    """Margins of 1e-4 on either side and gamma 1e-4: both gates are sigmoid(1)."""
    features = torch.tensor([[0.0], [0.01], [5.0]], dtype=torch.float64)
    coefficients = delta_coefficients(features, torch.tensor([1.0, -1.0, 0.0]), refinements=0)
    raw = 0.8 + 0.4 / (1 + np.exp(-1))
    near(coefficients, np.array([raw, raw, 0.8]) * 3 / (2 * raw + 0.8), 1e-9)


# ------------------------------------------------------------------------------------------ chunks, ranks, dtypes


class Chunks:
    """Features in chunks, counting how often they were iterated."""

    def __init__(self, *parts: Tensor) -> None:
        self.parts, self.passes = parts, 0

    def __call__(self) -> Iterator[Tensor]:
        self.passes += 1
        return iter(self.parts)


@pytest.mark.parametrize("k", range(5))
def test_passes_over_the_features(k: int) -> None:
    chunks = Chunks(V[:4], V[4:4], V[4:])
    near(stream_coefficients(chunks, A, refinements=k), delta_coefficients(V, A, refinements=k))
    assert chunks.passes == 2 + 2 * k


@pytest.mark.parametrize("advantages", [A.abs(), -A.abs(), A * 0])
def test_no_pass_where_the_answer_is_known(advantages: Tensor) -> None:
    chunks = Chunks(V)
    assert torch.equal(stream_coefficients(chunks, advantages), torch.ones(9, dtype=torch.float64))
    assert torch.equal(stream_coefficients(chunks, A, low=1.2), torch.ones(9, dtype=torch.float64))
    assert chunks.passes == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_independent_of_chunks_and_blocks(dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    features = (torch.randn(4000, 32, generator=generator, dtype=torch.float64) + 2).to(dtype)
    advantages = torch.randn(4000, generator=generator, dtype=torch.float64)
    wanted = stream_coefficients(Chunks(features), advantages, refinements=2)
    for size in (1, 7, 1000):
        near(stream_coefficients(Chunks(*features.split(size)), advantages, refinements=2), wanted, tolerance)
    monkeypatch.setattr("delta_lightning.functional.sides.BLOCK_ELEMENTS", 96)
    assert row_blocks(7, 32) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    near(stream_coefficients(Chunks(features), advantages, refinements=2), wanted, tolerance)


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("split", [[9], [4, 5], [9, 0], [0, 3, 0, 6]])
def test_independent_of_ranks(k: int, split: list[int]) -> None:
    """A rank without tokens may pass [0, D], or no chunk at all; every rank makes the same collectives."""
    ends = np.cumsum([0, *split])

    def work(rank: int, ranks: ThreadRank) -> tuple[Tensor, int]:
        part = slice(ends[rank], ends[rank + 1])
        features = Chunks(V[part]) if rank % 2 or split[rank] else Chunks()
        return stream_coefficients(features, A[part], refinements=k, all_sum=ranks.all_sum), ranks.calls

    results = run_ranks(len(split), work)
    near(torch.cat([coefficients for coefficients, _ in results]), GOLDEN[k], 1e-6)
    near(torch.cat([coefficients for coefficients, _ in results]), delta_coefficients(V, A, refinements=k))
    assert len({calls for _, calls in results}) == 1


def test_no_tokens_at_all() -> None:
    assert delta_coefficients(V[:0], A[:0]).shape == (0,)
    assert stream_coefficients(Chunks(), A[:0]).shape == (0,)


def test_a_side_that_lives_on_another_rank_only() -> None:
    """The sides of the golden batch on a rank each: neither rank may take its own for the whole."""

    def work(rank: int, ranks: ThreadRank) -> Tensor:
        mine = A > 0 if rank == 0 else A <= 0
        return delta_coefficients(V[mine], A[mine], all_sum=ranks.all_sum)

    positive, rest = run_ranks(2, work)
    near(torch.cat([positive, rest]), GOLDEN[1], 1e-6)


@pytest.mark.parametrize(
    ("dtype", "result"), [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)]
)
def test_dtype_of_the_result(dtype: torch.dtype, result: torch.dtype) -> None:
    assert delta_coefficients(V.to(dtype), A.to(dtype)).dtype == result
    assert stream_coefficients(Chunks(V.to(dtype)), A.to(dtype)).dtype == torch.float64


def test_no_gradient_flows() -> None:
    features, advantages = V.clone().requires_grad_(), A.clone().requires_grad_()
    assert not delta_coefficients(features, advantages).requires_grad


def test_margins_survive_a_common_offset() -> None:
    """Offset 30 in 512 dimensions, float32: the expanded form is off by 0.4 here, direct distances by 9e-6."""
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(2000, 512, generator=generator, dtype=torch.float64) * 0.05
    advantages = torch.where(torch.arange(2000) % 3 == 0, 1.0, -0.5).double()
    exact[advantages > 0, 0] += 1
    exact = (exact + 30).float().double()
    weights_2N = side_weights(advantages)
    error = (margins(exact.float(), weights_2N, advantages) - margins(exact, weights_2N, advantages)).abs().max()
    assert float(error) < 5e-6, float(error)


def test_extreme_margins_are_finite() -> None:
    features = torch.tensor([[1e4], [1e4 + 1e-3], [-1e4], [-1e4 - 1e-3], [3e4]], dtype=torch.float64)
    coefficients = delta_coefficients(features, torch.tensor([1.0, 1, -1, -1, -1e-3]), refinements=3)
    assert bool(torch.isfinite(coefficients).all())


@pytest.mark.parametrize(
    ("features", "advantages", "message"),
    [
        (V[:, 0], A, "features_ND"),
        (V, A[:, None], "advantages_N"),
        (V[:8], A, "8 rows, but there are 9"),
        (torch.cat([V, V]), A, "18 rows, but there are 9"),
    ],
)
def test_refuses_shapes_that_do_not_fit(features: Tensor, advantages: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delta_coefficients(features, advantages)
