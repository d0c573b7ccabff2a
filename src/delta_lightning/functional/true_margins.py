"""Margins and distances in the space of whole gradients, g_t = d log p(y_t) / d theta, of which only two are ever held.

What every proxy of DelTA stands for. For models small enough to differentiate, to measure proxies against.

A centroid is a weighted mean of gradients, so it is the gradient of a weighted mean of log-probabilities: one backward pass for
each side. Margins need the inner product of every g_t with one direction, which is the directional derivative of every
log-probability: one forward pass in forward mode for all tokens. Nothing is approximated:

    mu_side  = d/dtheta  sum_side w_t log p(y_t) / sum_side w_t
    <g_t, d> = d/de      log p(y_t; theta + e d)  at e = 0,     d = mu_pos - mu_neg
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

from delta_lightning.functional.feature_geometry import MASS_FLOOR
from delta_lightning.functional.sides import Sides

Parameters = Mapping[str, Tensor]


class LogProbs(NamedTuple):
    """Consecutive tokens: which of the N, and their log-probabilities as a function of the parameters, [n].

    The function must be differentiable in both modes; attention in fused kernels often is not.
    """

    part: slice
    function: Callable[[Parameters], Tensor]


class ParameterGeometry:
    """`Geometry` of gradients with respect to parameters. Sides of one unit only.

    Args:
        tokens: returns an iterable over this rank's tokens in order; called again for each pass; may yield nothing.
        parameters: with respect to which. A parameter that is used in two places counts once if it has one name here.
        sides: which tokens are compared.

    Raises:
        ValueError: sides of several units.
    """

    def __init__(self, tokens: Callable[[], Iterable[LogProbs]], parameters: Parameters, sides: Sides) -> None:
        if sides.num_units != 1:
            raise ValueError(f"whole gradients are compared within one unit, not {sides.num_units}")
        self._tokens, self._sides = tokens, sides
        self._parameters = {name: value.detach() for name, value in parameters.items()}
        self._squares_N: Tensor | None = None

    @property
    def sides(self) -> Sides:
        """Which tokens are compared."""
        return self._sides

    def centroids(self, weights_2N: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weighted mean gradient of each side, by parameter: one forward pass, two backward passes."""
        names, leaves = list(self._parameters), [value.clone().requires_grad_() for value in self._parameters.values()]
        sums = [[torch.zeros_like(value) for value in leaves] for _ in range(2)]
        with torch.enable_grad():
            for part, function in self._tokens():
                logprobs_N = function(dict(zip(names, leaves, strict=True)))
                for side, total in enumerate(sums):
                    weights_N = weights_2N[side, part].to(logprobs_N.dtype)
                    for sum_, gradient in zip(total, _gradients(logprobs_N, leaves, weights_N, side == 0), strict=True):
                        sum_ += gradient
        masses_2 = self.sides.sums(weights_2N)[:, 0].clamp(min=MASS_FLOOR)
        positive, negative = (
            {name: self.sides.all_sum(value) / mass.to(value.dtype) for name, value in zip(names, total, strict=True)}
            for total, mass in zip(sums, masses_2, strict=True)
        )
        return positive, negative

    def inner(self, direction: Parameters) -> Tensor:
        """<g_t, direction> of every token, [N] float64; parameters that `direction` leaves out count as 0. One forward pass."""
        inner_N = torch.zeros_like(self.sides.advantages_N)
        tangents = {name: direction.get(name, torch.zeros_like(value)) for name, value in self._parameters.items()}
        for part, function in self._tokens():
            along_N: Tensor = jvp(function, (self._parameters,), (tangents,))[1]
            inner_N[part] = along_N.detach().double()
        return inner_N

    def margins(self, weights_2N: Tensor) -> Tensor:
        """See `Geometry`: 2 (<g, d> - <c, d>)."""
        positive, negative = self.centroids(weights_2N)
        direction = {name: positive[name] - negative[name] for name in positive}
        offset = (dot(positive, direction) + dot(negative, direction)) / 2
        return 2 * (self.inner(direction) - offset)

    def own_distances(self, weights_2N: Tensor) -> Tensor:
        """See `Geometry`: |g|^2 - 2 <g, mu> + |mu|^2, floored at 0. |g|^2 costs a backward pass for every token, once."""
        means = self.centroids(weights_2N)
        inner_2N = torch.stack([self.inner(mean) for mean in means])
        lengths_2 = torch.stack([dot(mean, mean) for mean in means])
        side_N = (self.sides.advantages_N < 0).long()
        inner_N = inner_2N.gather(0, side_N[None])[0]
        return (self._squares() - 2 * inner_N + lengths_2[side_N]).clamp(min=0)

    def _squares(self) -> Tensor:
        """|g_t|^2 of every token, [N] float64."""
        if self._squares_N is None:
            self._squares_N = torch.zeros_like(self.sides.advantages_N)
            names, leaves = list(self._parameters), [value.clone().requires_grad_() for value in self._parameters.values()]
            with torch.enable_grad():
                for part, function in self._tokens():
                    logprobs_N = function(dict(zip(names, leaves, strict=True)))
                    for place, logprob in enumerate(logprobs_N):
                        squares = [one.double().square().sum() for one in _gradients(logprob, leaves, None, True)]
                        self._squares_N[part.start + place] = torch.stack(squares).sum()
        return self._squares_N


def _gradients(values: Tensor, leaves: list[Tensor], weights: Tensor | None, keep_graph: bool) -> tuple[Tensor, ...]:
    """Gradient of the weighted sum of `values`; 0 for a leaf that they do not depend on."""
    return torch.autograd.grad(values, leaves, weights, retain_graph=keep_graph, allow_unused=True, materialize_grads=True)


def dot(left: Parameters, right: Parameters) -> Tensor:
    """Inner product over the parameters of `left`, float64."""
    return torch.stack([(value.double() * right[name].double()).sum() for name, value in left.items()]).sum()
